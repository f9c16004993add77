// The app reads and writes at one FHIR service, which may be in another resource group.

param workspaceName string
param fhirName string

@description('The app: its identity asks the FHIR service.')
param principalId string

var roles = loadJsonContent('../roles.json')

resource workspace 'Microsoft.HealthcareApis/workspaces@2024-03-31' existing = {
  name: workspaceName
}

resource fhir 'Microsoft.HealthcareApis/workspaces/fhirservices@2024-03-31' existing = {
  parent: workspace
  name: fhirName
}

resource contributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(fhir.id, principalId, roles['FHIR Data Contributor'])
  scope: fhir
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['FHIR Data Contributor'])
  }
}
