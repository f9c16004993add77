// The folders of senders and the answers to their files, in an account of their own: whoever may write here
// has nothing to do with the account of the journal.

param name string
param location string
param tags object

@allowed([
  'Standard_LRS'
  'Standard_ZRS'
])
param sku string

@description('The app: its identity takes files, and writes answers.')
param principalId string

@description('The container of the folders.')
param container string

@description('SFTP for local users. It needs a hierarchical namespace, which an account has from its beginning or never, and it is charged by the hour.')
param sftp bool

@description('No way in but private endpoints, and the addresses below.')
param private bool

@description('Addresses or ranges of senders; empty: everywhere, or with private only private endpoints.')
param addresses array

@description('Days after which an answer is deleted.')
param retentionDays int

var roles = loadJsonContent('../roles.json')

var closed = private && empty(addresses)
var limited = private || !empty(addresses)

var containers = [
  container
  'results'
]

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    // Folders with access lists of their own: https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-access-control
    isHnsEnabled: true
    isSftpEnabled: sftp
    isLocalUserEnabled: sftp
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: closed ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: limited ? 'Deny' : 'Allow'
      ipRules: [for one in addresses: {
        value: one
        action: 'Allow'
      }]
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 7
    }
    deleteRetentionPolicy: {
      enabled: true
      days: 7
    }
  }
}

resource folder 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = [for one in containers: {
  parent: blobs
  name: one
  properties: {
    publicAccess: 'None'
  }
}]

// A file is deleted when it is a delivery. An answer is its sender's to fetch, and then of no use.
resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'answers-are-not-kept-for-longer'
          type: 'Lifecycle'
          definition: {
            filters: {
              blobTypes: [
                'blockBlob'
              ]
              prefixMatch: [
                'results/'
              ]
            }
            actions: {
              baseBlob: {
                delete: {
                  daysAfterModificationGreaterThan: retentionDays
                }
              }
            }
          }
        }
      ]
    }
  }
  dependsOn: [
    blobs
  ]
}

resource blobContributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (one, i) in containers: {
  name: guid(folder[i].id, principalId, roles['Storage Blob Data Contributor'])
  scope: folder[i]
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Storage Blob Data Contributor'])
  }
}]

output id string = account.id
output name string = account.name
