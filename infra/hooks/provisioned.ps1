# Told by azd from the outputs of main.bicep.
$ErrorActionPreference = 'Stop'
Write-Host "One step is left, in Dataverse: an application user for the client id $env:identityClientId."
Write-Host "Patients go to $env:fhirUrl"
