// The journal, the queues and the package of the app, in an account of their own without keys.

param name string
param location string
param tags object

@allowed([
  'Standard_LRS'
  'Standard_ZRS'
])
param sku string

@description('The app: its identity works on what is here.')
param principalId string

@description('No way in but private endpoints, and Event Grid by its own identity.')
param private bool

@description('Days after which housekeeping forgets a delivery that is over.')
param retentionDays int

@description('Days after which the bytes of a delivery are deleted whatever became of it; 0: never.')
param keptAtMostDays int

@description('The queue to which the events of the FHIR service are brought.')
param eventsQueue string

@description('Log Analytics, for who deleted what.')
param logsId string

var roles = loadJsonContent('../roles.json')

// The last two are of the Functions host.
var containers = [
  'configuration'
  'deliveries'
  'deployments'
  'event-dead-letters'
  'azure-webjobs-hosts'
  'azure-webjobs-secrets'
]

var queues = [
  'relay'
  'relay-poison'
  'mirror'
  'mirror-poison'
  'external-events'
  'external-events-poison'
  'inbox-events'
  'inbox-events-poison'
  'inbox-answers'
  'inbox-answers-poison'
  'jobs'
  'jobs-poison'
  'dataverse-edits'
  'dataverse-edits-poison'
  eventsQueue
  '${eventsQueue}-poison'
]

var tables = [
  'activity'
  'attention'
  'audit'
  'configuration'
  'deliveries'
  'deliverykeys'
  'flow'
  'jobs'
  'opendeliveries'
  'deletions'
  'duedays'
  'pendinglookups'
  'rowkeys'
  'rows'
  'signingkeys'
  'subscriptions'
  'writeclaims'
  'writelocks'
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
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    networkAcls: {
      // Event Grid is a trusted service: https://learn.microsoft.com/azure/event-grid/handler-storage-queues
      bypass: 'AzureServices'
      defaultAction: private ? 'Deny' : 'Allow'
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

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = {
  parent: account
  name: 'default'
}

resource tableService 'Microsoft.Storage/storageAccounts/tableServices@2025-01-01' = {
  parent: account
  name: 'default'
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = [for one in containers: {
  parent: blobs
  name: one
  properties: {
    publicAccess: 'None'
  }
}]

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = [for one in queues: {
  parent: queueService
  name: one
}]

resource table 'Microsoft.Storage/storageAccounts/tableServices/tables@2025-01-01' = [for one in tables: {
  parent: tableService
  name: one
}]

// Only the journal knows which delivery is over, and housekeeping then deletes its blobs. What is
// older waits for a person, and is never deleted by its age unless an operator says so.
var cooler = {
  name: 'what-waits-for-a-person-is-cooled'
  type: 'Lifecycle'
  definition: {
    filters: {
      blobTypes: [
        'blockBlob'
      ]
      prefixMatch: [
        'deliveries/'
      ]
    }
    actions: {
      baseBlob: {
        tierToCool: {
          daysAfterModificationGreaterThan: retentionDays
        }
      }
    }
  }
}

var ended = {
  name: 'nothing-is-kept-for-longer'
  type: 'Lifecycle'
  definition: {
    filters: {
      blobTypes: [
        'blockBlob'
        'appendBlob'
      ]
      prefixMatch: [
        'deliveries/'
      ]
    }
    actions: {
      baseBlob: {
        delete: {
          daysAfterModificationGreaterThan: keptAtMostDays
        }
      }
    }
  }
}

// An event names a resource, and reconcile finds what it would have brought.
var undelivered = {
  name: 'events-that-never-arrived-are-forgotten'
  type: 'Lifecycle'
  definition: {
    filters: {
      blobTypes: [
        'blockBlob'
      ]
      prefixMatch: [
        'event-dead-letters/'
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

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: keptAtMostDays > 0 ? [
        cooler
        undelivered
        ended
      ] : [
        cooler
        undelivered
      ]
    }
  }
  dependsOn: [
    blobs
  ]
}

// The scope is the account: the Functions host asks for the list of containers as a test of its storage,
// and makes its own. https://github.com/Azure/azure-functions-host (WebJobsStorageHealthCheck)
resource blobOwner 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, principalId, roles['Storage Blob Data Owner'])
  scope: account
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Storage Blob Data Owner'])
  }
}

resource queueContributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (one, i) in queues: {
  name: guid(queue[i].id, principalId, roles['Storage Queue Data Contributor'])
  scope: queue[i]
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Storage Queue Data Contributor'])
  }
}]

// The scope is the account: a request to make a table names it in its body only, so no table's role allows
// it; the app makes its tables if they are not there, and the host one for its diagnostics each month.
// https://learn.microsoft.com/rest/api/storageservices/create-table
resource tableContributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, principalId, roles['Storage Table Data Contributor'])
  scope: account
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Storage Table Data Contributor'])
  }
}

// Reads and writes are the app's own, some dozens for each delivery; the activity log tells of them.
resource deletions 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'deletions'
  scope: blobs
  properties: {
    workspaceId: logsId
    logs: [
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
  }
}

output id string = account.id
output name string = account.name
output deploymentContainer string = '${account.properties.primaryEndpoints.blob}deployments'
