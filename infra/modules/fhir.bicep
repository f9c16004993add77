// A workspace of Azure Health Data Services with a FHIR service, and a DICOM service where wanted.

param workspaceName string
param fhirName string
param location string
param tags object
param dicom bool

@description('No way in but a private endpoint.')
param private bool

@description('Log every request to the FHIR service. Its address can hold an identifier that was searched for.')
param audit bool

@description('Log Analytics, for the above.')
param logsId string

var access = private ? 'Disabled' : 'Enabled'

resource workspace 'Microsoft.HealthcareApis/workspaces@2024-03-31' = {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    publicNetworkAccess: access
  }
}

resource fhir 'Microsoft.HealthcareApis/workspaces/fhirservices@2024-03-31' = {
  parent: workspace
  name: fhirName
  location: location
  tags: tags
  kind: 'fhir-R4'
  properties: {
    publicNetworkAccess: access
    authenticationConfiguration: {
      authority: uri(environment().authentication.loginEndpoint, tenant().tenantId)
      audience: 'https://${workspaceName}-${fhirName}.fhir.azurehealthcareapis.com'
      smartProxyEnabled: false
    }
    resourceVersionPolicyConfiguration: {
      // Rows and write locks go by the version of a resource.
      default: 'versioned'
    }
  }
}

resource images 'Microsoft.HealthcareApis/workspaces/dicomservices@2024-03-31' = if (dicom) {
  parent: workspace
  name: 'dicom'
  location: location
  tags: tags
  properties: {
    publicNetworkAccess: access
  }
}

resource requests 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (audit) {
  name: 'audit'
  scope: fhir
  properties: {
    workspaceId: logsId
    logs: [
      {
        category: 'AuditLogs'
        enabled: true
      }
    ]
  }
}
