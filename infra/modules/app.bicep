// The function app on Flex Consumption: its scale, its settings and its endpoints.

param name string
param location string
param tags object
param identityId string
param deploymentContainer string
param pythonVersion string
param zoneRedundant bool

@description('Instances that are always there, as { name, instanceCount }: name is http, or function: and the name of a function.')
param alwaysReady array

param maximumInstances int
param instanceMemoryMB int

@description('Requests that one instance answers side by side.')
param httpConcurrency int

@description('Settings as the deployment decides them.')
param decided object

@description('Settings as an operator decides them: names and defaults are in settings.json.')
param settings object

@description('Secrets of senders: by the names of app settings, the names of secrets in the vault.')
param senderSecrets object

@description('Address of the vault, with a slash at its end.')
param vaultUri string

@description('The subnet through which the app goes out; empty: none.')
param subnetId string

@description('Whether the endpoints are open to the internet, or to a private endpoint only.')
param publicAccess bool

@allowed([
  'off'
  'optional'
  'required'
])
param clientCertificates string

param allowedOrigins array

@description('Easy Auth: the application registration of the endpoints; empty: function keys only.')
param authClientId string
param authTenantId string

@description('Easy Auth: audiences of tokens beside the registration itself.')
param authAudiences array

@description('Easy Auth: the applications (client ids) that may come in, beside the registration itself, by which people sign in; empty: all of the tenant.')
param authApplications array

var defaults = loadJsonContent('../settings.json')

// A name that the app does not know ends the deployment here, which then tells those that it does.
var stated = [for one in items(union(defaults, settings, decided)): {
  name: one.key
  value: contains(union(defaults, decided), one.key) ? one.value : defaults[one.key]
}]

// A deployment replaces all settings of the app, so that these belong to it, too. Without a version the
// newest one of a secret is taken: https://learn.microsoft.com/azure/app-service/app-service-key-vault-references
var references = [for one in items(senderSecrets): {
  name: one.key
  value: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${one.value})'
}]

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: name
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  name: name
  location: location
  // By this tag `azd deploy` finds where the service `relay` of azure.yaml runs.
  tags: union(tags, {
    'azd-service-name': 'relay'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    clientCertEnabled: clientCertificates != 'off'
    clientCertMode: clientCertificates == 'required' ? 'Required' : 'Optional'
    // A probe has no certificate, and hears only that the app is alive.
    clientCertExclusionPaths: '/api/health'
    keyVaultReferenceIdentity: identityId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: deploymentContainer
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: pythonVersion
      }
      scaleAndConcurrency: {
        alwaysReady: alwaysReady
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstances
        triggers: {
          http: {
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      remoteDebuggingEnabled: false
      cors: {
        allowedOrigins: allowedOrigins
        supportCredentials: false
      }
      appSettings: concat(stated, references)
    }
  }
}

resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

// Whoever signs in to the pages gets an ID token and a cookie: without a secret of the registration, by
// the implicit flow. docs/pages.md says what the registration needs. A token that comes is checked, and who it belongs to reaches the app in a header, which the platform
// takes away from everybody else. Without a token a request passes: most senders cannot have one, and
// the app decides by senders.toml (scheme `entra`) or by the function key.
resource auth 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: app
  name: 'authsettingsV2'
  properties: {
    platform: {
      enabled: !empty(authClientId)
    }
    globalValidation: {
      requireAuthentication: false
      unauthenticatedClientAction: 'AllowAnonymous'
    }
    httpSettings: {
      requireHttps: true
      // Behind a gateway people come back to its address. Entra sends nobody to one that is not registered.
      forwardProxy: {
        convention: empty(settings.?PUBLIC_URL ?? '') ? 'NoProxy' : 'Standard'
      }
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: !empty(authClientId)
        registration: {
          clientId: authClientId
          openIdIssuer: uri(environment().authentication.loginEndpoint, '${authTenantId}/v2.0')
        }
        validation: {
          allowedAudiences: authAudiences
          defaultAuthorizationPolicy: {
            // People sign in through the registration itself.
            allowedApplications: empty(authApplications) ? [] : union(authApplications, [
              authClientId
            ])
          }
        }
      }
    }
    login: {
      tokenStore: {
        enabled: false
      }
      // Signing out does not end a copy of the cookie.
      cookieExpiration: {
        convention: 'FixedTime'
        timeToExpiration: '04:00:00'
      }
    }
  }
}

output id string = app.id
output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
