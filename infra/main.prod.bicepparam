using 'main.bicep'

// For patients: private, over zones, watched, into the FHIR service that the hospital has.
param uniqueValue = readEnvironmentVariable('UNIQUE_VALUE')
param dataverseUrl = readEnvironmentVariable('DATAVERSE_URL')
param fhirServiceId = readEnvironmentVariable('FHIR_SERVICE_ID', '')
param fhirLocation = readEnvironmentVariable('FHIR_LOCATION', '')

param private = true
param zoneRedundant = true
param auditFhir = true

param alwaysReady = [
  {
    name: 'http'
    instanceCount: 2
  }
]
param maximumInstances = 40

// Where a registration is named, people sign in to the pages by it, and senders whose scheme in senders.toml is `entra` come with its tokens.
param authClientId = readEnvironmentVariable('AUTH_CLIENT_ID', '')
// What stands before /api as senders know it, where a gateway stands before the app.
param settings = {
  PUBLIC_URL: readEnvironmentVariable('PUBLIC_URL', '')
}

param alertEmails = [
  readEnvironmentVariable('ALERT_EMAIL')
]
param quietHours = 2
param logDays = 90

param tags = {
  workload: 'relay'
  environment: 'prod'
}
