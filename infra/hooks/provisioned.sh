#!/bin/sh
# Told by azd from the outputs of main.bicep.
set -eu
echo "One step is left, in Dataverse: an application user for the client id $identityClientId."
echo "Patients go to $fhirUrl"
