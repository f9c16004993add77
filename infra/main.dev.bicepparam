using 'main.bicep'

// For trying out: the smallest, open to the internet, its own FHIR service.
param uniqueValue = readEnvironmentVariable('UNIQUE_VALUE')
param dataverseUrl = readEnvironmentVariable('DATAVERSE_URL')

param maximumInstances = 40

param settings = {
  RETENTION_DAYS: '7'
}

param tags = {
  workload: 'relay'
  environment: 'dev'
}
