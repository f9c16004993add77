// The relay and all that it needs, in one resource group, on one identity, without a key.
targetScope = 'resourceGroup'

// What the retired template asked for, with the same meaning.

@description('Ends every name; what is global must not be taken by somebody else.')
@minLength(3)
@maxLength(12)
param uniqueValue string

@description('Address of the Dataverse organisation, such as https://contoso.crm.dynamics.com.')
@minLength(12)
param dataverseUrl string

@description('The relay always writes to a FHIR server; false is refused, not ignored.')
@allowed([
  true
])
param postToFhirServer bool = true

@description('Address of a FHIR server that is there already. Empty: the address of the FHIR service below.')
param fhirServerUrl string = ''

// What the relay is beside that.

@description('Resource id of a FHIR service of Azure Health Data Services that is there already. Empty, with no address above: a new one is made.')
param fhirServiceId string = ''

@description('Region of that FHIR service. Empty: the one of the relay.')
param fhirLocation string = ''

param location string = resourceGroup().location
param tags object = {}

@description('A DICOM service beside a new FHIR service.')
param dicom bool = false

@description('Bring changes that others make at the FHIR service to Dataverse, by Event Grid.')
param fhirEvents bool = true

@description('Log every request to a new FHIR service: who, when, and the address, which can hold an identifier.')
param auditFhir bool = false

@description('Settings of the app by name, as text; for all others the defaults of settings.json hold.')
param settings object = {}

@description('Secrets of senders: by the names of app settings in senders.toml, the names of secrets in the vault of the deployment.')
param senderSecrets object = {}

// How much of it there is.

@allowed([
  '3.11'
  '3.12'
])
param pythonVersion string = '3.11'

@description('Instances that are always there, such as { name: \'http\', instanceCount: 1 }.')
param alwaysReady array = []

@minValue(1)
@maxValue(1000)
param maximumInstances int = 40

@allowed([
  512
  2048
  4096
])
param instanceMemoryMB int = 2048

@description('Requests that one instance answers side by side.')
param httpConcurrency int = 16

@description('Spread app and storage over the zones of the region.')
param zoneRedundant bool = false

// Who comes in, and how.

@description('Storage, vault and FHIR service by private endpoints only.')
param private bool = false

@description('The network that is made for that, its subnet for the app (/27 or larger) and that for the endpoints.')
param addressSpace string = '10.40.0.0/24'
param appPrefix string = '10.40.0.0/26'
param endpointPrefix string = '10.40.0.64/26'

@description('Resource id of a NAT gateway for the app; empty: the outbound access that Azure provides.')
param natGatewayId string = ''

@description('Open the HTTP endpoints to the internet. Without it they are reached, and published to, by a private endpoint only.')
param publicAccess bool = true

@description('Easy Auth: client id of the application registration of the endpoints, for people who open the pages, and for senders whose scheme is entra. Empty: none.')
param authClientId string = ''
param authTenantId string = tenant().tenantId
param authAudiences array = []

@description('Easy Auth: client ids of the senders. Empty: every application of the tenant. People come in by authClientId.')
param authApplications array = []

@description('The platform demands a certificate at most; whose it is, a gateway has to check.')
@allowed([
  'off'
  'optional'
  'required'
])
param clientCertificates string = 'off'

@description('Web pages that may call the endpoints from a browser.')
param allowedOrigins array = []

@description('Container in which each sender whose scheme is folder has a folder of files; empty: no files are taken.')
param inbox string = ''

@description('SFTP into the inbox, for local users. Charged by the hour.')
param inboxSftp bool = false

@description('Public addresses or ranges, such as 203.0.113.0/24, from which senders reach the inbox; empty: everywhere, or with private only private endpoints.')
param inboxAddresses array = []

// What is watched, kept and spent.

@description('Addresses that are told of alerts and of the budget.')
param alertEmails array = []

@description('Minutes after which a delivery that is not done is too old.')
param oldestMinutes int = 60

@description('Messages in all queues together that are too many.')
param backlog int = 10000

@description('Hours without a delivery that are too many between expectedFrom and expectedTo (UTC); 0: no such alert.')
@minValue(0)
@maxValue(6)
param quietHours int = 0
param expectedFrom int = 6
param expectedTo int = 18

@description('Days of the week, 0 for Sunday.')
param expectedDays array = [
  1
  2
  3
  4
  5
]

@minValue(30)
@maxValue(730)
param logDays int = 30

@description('Days after which the bytes of a delivery are deleted even if it is parked; 0: never. More than RETENTION_DAYS.')
param keptAtMostDays int = 0

@description('For this resource group, in the currency of the subscription; 0: no budget.')
param monthlyBudget int = 0

@description('First day of a month, such as 2027-01-01. It cannot be changed later.')
param budgetFrom string = ''

var name = 'relay-${toLower(uniqueValue)}'
var storageName = 'relay${replace(toLower(uniqueValue), '-', '')}'
var vaultName = '${name}-kv'
var eventsQueue = 'fhir-events'
var inboxQueue = 'inbox-events'
var inboxName = 'relayin${replace(toLower(uniqueValue), '-', '')}'
var kept = loadJsonContent('settings.json')

// There is a FHIR service of Azure to give a role on, unless only an address of another server is given.
var newService = empty(fhirServiceId) && empty(fhirServerUrl)
var service = newService || !empty(fhirServiceId)
var serviceId = newService ? resourceId('Microsoft.HealthcareApis/workspaces/fhirservices', storageName, 'fhir') : fhirServiceId
var servicePath = service ? split(serviceId, '/') : split('/subscriptions//resourceGroups//providers///none//none', '/')
var workspaceId = service ? resourceId(servicePath[2], servicePath[4], 'Microsoft.HealthcareApis/workspaces', servicePath[8]) : ''
var fhirUrl = empty(fhirServerUrl) ? 'https://${servicePath[8]}-${servicePath[10]}.fhir.azurehealthcareapis.com' : fhirServerUrl

var privateAccess = private && !publicAccess

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

module watch 'modules/watch.bicep' = {
  name: 'watch'
  params: {
    name: name
    location: location
    tags: tags
    principalId: identity.properties.principalId
    logDays: logDays
    alertEmails: alertEmails
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  params: {
    name: storageName
    location: location
    tags: tags
    sku: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS'
    principalId: identity.properties.principalId
    private: private
    retentionDays: int(settings.?RETENTION_DAYS ?? kept.RETENTION_DAYS)
    keptAtMostDays: keptAtMostDays
    eventsQueue: eventsQueue
    logsId: watch.outputs.logsId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  params: {
    name: vaultName
    location: location
    tags: tags
    principalId: identity.properties.principalId
    private: private
    logsId: watch.outputs.logsId
  }
}

module fhir 'modules/fhir.bicep' = if (newService) {
  name: 'fhir'
  params: {
    workspaceName: servicePath[8]
    fhirName: servicePath[10]
    location: location
    tags: tags
    dicom: dicom
    private: private
    audit: auditFhir
    logsId: watch.outputs.logsId
  }
}

module fhirAccess 'modules/fhir-access.bicep' = if (service) {
  name: 'fhir-access-${name}'
  scope: resourceGroup(servicePath[2], servicePath[4])
  params: {
    workspaceName: servicePath[8]
    fhirName: servicePath[10]
    principalId: identity.properties.principalId
  }
  dependsOn: [
    fhir
  ]
}

module events 'modules/events.bicep' = if (service && fhirEvents) {
  name: 'events'
  params: {
    name: '${name}-fhir-events'
    location: newService || empty(fhirLocation) ? location : fhirLocation
    tags: tags
    sourceId: workspaceId
    topicType: 'Microsoft.HealthcareApis.Workspaces'
    eventTypes: [
      'Microsoft.HealthcareApis.FhirResourceCreated'
      'Microsoft.HealthcareApis.FhirResourceUpdated'
      'Microsoft.HealthcareApis.FhirResourceDeleted'
    ]
    storageName: storage.outputs.name
    queueName: eventsQueue
    deadLetterContainer: 'event-dead-letters'
    actionGroupId: watch.outputs.actionGroupId
  }
  dependsOn: [
    fhir
  ]
}

module folders 'modules/inbox.bicep' = if (!empty(inbox)) {
  name: 'inbox'
  params: {
    name: inboxName
    location: location
    tags: tags
    sku: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS'
    principalId: identity.properties.principalId
    container: inbox
    sftp: inboxSftp
    private: private
    addresses: inboxAddresses
    retentionDays: int(settings.?RETENTION_DAYS ?? kept.RETENTION_DAYS)
  }
}

module inboxEvents 'modules/events.bicep' = if (!empty(inbox)) {
  name: 'inbox-events'
  params: {
    name: '${name}-inbox-events'
    location: location
    tags: tags
    sourceId: resourceId('Microsoft.Storage/storageAccounts', inboxName)
    topicType: 'Microsoft.Storage.StorageAccounts'
    eventTypes: [
      'Microsoft.Storage.BlobCreated'
      'Microsoft.Storage.BlobRenamed'
    ]
    subjectBeginsWith: '/blobServices/default/containers/${inbox}/blobs/'
    conditions: [
      {
        // The file is there and not yet whole: https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage
        operatorType: 'StringNotIn'
        key: 'data.api'
        values: [
          'CreateFile'
          'SftpCreate'
          'SftpWrite'
        ]
      }
    ]
    storageName: storage.outputs.name
    queueName: inboxQueue
    deadLetterContainer: 'event-dead-letters'
    actionGroupId: watch.outputs.actionGroupId
  }
  dependsOn: [
    folders
  ]
}

module inboxEndpoint 'modules/endpoint.bicep' = if (private && !empty(inbox)) {
  name: 'endpoint-inbox'
  params: {
    name: '${name}-inbox'
    location: location
    tags: tags
    subnetId: resourceId('Microsoft.Network/virtualNetworks/subnets', name, 'endpoints')
    targetId: resourceId('Microsoft.Storage/storageAccounts', inboxName)
    group: 'blob'
    zones: [
      'privatelink.blob.${environment().suffixes.storage}'
    ]
  }
  dependsOn: [
    network
    folders
  ]
}

module network 'modules/network.bicep' = if (private) {
  name: 'network'
  params: {
    name: name
    location: location
    tags: tags
    addressSpace: addressSpace
    appPrefix: appPrefix
    endpointPrefix: endpointPrefix
    natGatewayId: natGatewayId
    storageId: storage.outputs.id
    vaultId: vault.outputs.id
    workspaceId: workspaceId
    withAppZone: privateAccess
  }
  dependsOn: [
    fhir
  ]
}

module app 'modules/app.bicep' = {
  name: 'app'
  params: {
    name: name
    location: location
    tags: tags
    identityId: identity.id
    deploymentContainer: storage.outputs.deploymentContainer
    pythonVersion: pythonVersion
    zoneRedundant: zoneRedundant
    alwaysReady: alwaysReady
    maximumInstances: maximumInstances
    instanceMemoryMB: instanceMemoryMB
    httpConcurrency: httpConcurrency
    settings: settings
    senderSecrets: senderSecrets
    vaultUri: 'https://${vaultName}${environment().suffixes.keyvaultDns}/'
    decided: {
      // Buffers from 1 MB go back to the system as soon as they are free. By default the C library
      // keeps as many as the largest that was freed: https://man7.org/linux/man-pages/man3/mallopt.3.html
      MALLOC_MMAP_THRESHOLD_: '1048576'
      AzureWebJobsStorage__accountName: storage.outputs.name
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identity.properties.clientId
      AZURE_CLIENT_ID: identity.properties.clientId
      FHIR_URL: fhirUrl
      DATAVERSE_URL: dataverseUrl
      FHIR_EVENTS_QUEUE: eventsQueue
      INBOX: inbox
      INBOX_URL: empty(inbox) ? '' : 'https://${inboxName}.blob.${environment().suffixes.storage}'
      APPLICATIONINSIGHTS_CONNECTION_STRING: watch.outputs.insightsAddress
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identity.properties.clientId};Authorization=AAD'
    }
    subnetId: private ? resourceId('Microsoft.Network/virtualNetworks/subnets', name, 'app') : ''
    publicAccess: publicAccess
    clientCertificates: clientCertificates
    allowedOrigins: allowedOrigins
    authClientId: authClientId
    authTenantId: authTenantId
    authAudiences: authAudiences
    authApplications: authApplications
  }
  dependsOn: [
    network
  ]
}

module appEndpoint 'modules/endpoint.bicep' = if (privateAccess) {
  name: 'endpoint-app'
  params: {
    name: '${name}-app'
    location: location
    tags: tags
    subnetId: resourceId('Microsoft.Network/virtualNetworks/subnets', name, 'endpoints')
    targetId: app.outputs.id
    group: 'sites'
    zones: [
      'privatelink.azurewebsites.net'
    ]
  }
  dependsOn: [
    network
  ]
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  params: {
    name: name
    location: location
    tags: tags
    logsId: watch.outputs.logsId
    storageId: storage.outputs.id
    actionGroupId: watch.outputs.actionGroupId
    oldestMinutes: oldestMinutes
    backlog: backlog
    quietHours: quietHours
    expectedFrom: expectedFrom
    expectedTo: expectedTo
    expectedDays: expectedDays
  }
}

module budget 'modules/budget.bicep' = if (monthlyBudget > 0) {
  name: 'budget'
  params: {
    name: name
    amount: monthlyBudget
    startDate: budgetFrom
    emails: alertEmails
  }
}

output functionAppName string = app.outputs.name
output functionAppUrl string = app.outputs.url
// Dataverse makes an application user of this id: docs/deploying.md
output identityClientId string = identity.properties.clientId
output identityPrincipalId string = identity.properties.principalId
output fhirUrl string = fhirUrl
output storageName string = storage.outputs.name
output inboxName string = empty(inbox) ? '' : inboxName
output writesToFhir bool = postToFhirServer
