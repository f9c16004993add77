// https://hl7.org/fhir/R4/capabilitystatement.html

import { RESOURCE_TYPES } from './definitions.mjs';

const INTERACTIONS = ['read', 'vread', 'update', 'patch', 'delete', 'history-instance', 'create', 'search-type'];
const started = new Date().toISOString();

export function capabilityStatement(base) {
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: started,
    kind: 'instance',
    implementation: { description: 'FHIR server for a laptop, in memory', url: base },
    fhirVersion: '4.0.1',
    format: ['json'],
    patchFormat: ['application/json-patch+json', 'application/fhir+json'],
    rest: [{
      mode: 'server',
      interaction: [{ code: 'batch' }, { code: 'transaction' }],
      resource: RESOURCE_TYPES.map((type) => ({
        type,
        interaction: INTERACTIONS.map((code) => ({ code })),
        versioning: 'versioned-update',
        readHistory: true,
        updateCreate: true,
        conditionalCreate: true,
        conditionalUpdate: true,
        conditionalDelete: 'single',
      })),
    }],
  };
}
