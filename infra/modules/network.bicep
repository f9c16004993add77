// A network of the app's own: one subnet for the app, one for the private endpoints of its neighbours.

param name string
param location string
param tags object

@description('Free where this network is joined to others.')
param addressSpace string
param appPrefix string
param endpointPrefix string

@description('A gateway that gives the app a fixed address to the outside; empty: the outbound access that Azure provides.')
param natGatewayId string

param storageId string
param vaultId string

@description('The workspace of the FHIR service; empty: the FHIR server is elsewhere.')
param workspaceId string

@description('A zone for the private endpoint of the app, too.')
param withAppZone bool

// https://learn.microsoft.com/azure/private-link/private-endpoint-dns
var blobZone = 'privatelink.blob.${environment().suffixes.storage}'
var queueZone = 'privatelink.queue.${environment().suffixes.storage}'
var tableZone = 'privatelink.table.${environment().suffixes.storage}'
var vaultZone = 'privatelink.vaultcore.azure.net'
var fhirZones = [
  'privatelink.workspace.azurehealthcareapis.com'
  'privatelink.fhir.azurehealthcareapis.com'
  'privatelink.dicom.azurehealthcareapis.com'
]

var zones = concat([
  blobZone
  queueZone
  tableZone
  vaultZone
], empty(workspaceId) ? [] : fhirZones, withAppZone ? [
  'privatelink.azurewebsites.net'
] : [])

var ours = [
  {
    group: 'blob'
    target: storageId
    zones: [
      blobZone
    ]
  }
  {
    group: 'queue'
    target: storageId
    zones: [
      queueZone
    ]
  }
  {
    group: 'table'
    target: storageId
    zones: [
      tableZone
    ]
  }
  {
    group: 'vault'
    target: vaultId
    zones: [
      vaultZone
    ]
  }
]

var fhir = {
  group: 'healthcareworkspace'
  target: workspaceId
  zones: fhirZones
}

resource closed 'Microsoft.Network/networkSecurityGroups@2025-01-01' = {
  name: '${name}-closed'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'nothing-from-the-internet'
        properties: {
          access: 'Deny'
          direction: 'Inbound'
          priority: 100
          protocol: '*'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2025-01-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [
        addressSpace
      ]
    }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: appPrefix
          defaultOutboundAccess: empty(natGatewayId)
          natGateway: empty(natGatewayId) ? null : {
            id: natGatewayId
          }
          networkSecurityGroup: {
            id: closed.id
          }
          delegations: [
            {
              name: 'app'
              properties: {
                // Of Flex Consumption: https://learn.microsoft.com/azure/azure-functions/flex-consumption-plan
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: endpointPrefix
          defaultOutboundAccess: false
          privateEndpointNetworkPolicies: 'Enabled'
          networkSecurityGroup: {
            id: closed.id
          }
        }
      }
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = [for one in zones: {
  name: one
  location: 'global'
  tags: tags
}]

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (one, i) in zones: {
  parent: zone[i]
  name: name
  location: 'global'
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: network.id
    }
  }
}]

module endpoint 'endpoint.bicep' = [for one in concat(ours, empty(workspaceId) ? [] : [fhir]): {
  name: 'endpoint-${one.group}'
  params: {
    name: '${name}-${one.group}'
    location: location
    tags: tags
    subnetId: '${network.id}/subnets/endpoints'
    targetId: one.target
    group: one.group
    zones: one.zones
  }
  dependsOn: [
    zone
  ]
}]
