// Refusals, and how FHIR tells them: https://hl7.org/fhir/R4/operationoutcome.html

const CODES = {
  400: 'invalid', 404: 'not-found', 405: 'not-supported', 408: 'timeout', 409: 'conflict', 410: 'deleted',
  412: 'conflict', 413: 'too-long', 415: 'not-supported', 429: 'throttled', 501: 'not-supported', 503: 'transient',
};

export const isError = ({ severity }) => severity === 'error' || severity === 'fatal';

export class FhirError extends Error {
  /** A refusal with an HTTP status; `details` is a sentence, or the issues that a validation found. */
  constructor(status, details, expression) {
    const issues = Array.isArray(details) ? details : [issue(status, details, expression)];
    super(issues[0].details.text);
    this.status = status;
    this.issues = issues;
  }

  get outcome() {
    return { resourceType: 'OperationOutcome', issue: this.issues };
  }

  /** The same refusal, told of the bundle entry that caused it: only its errors, since one of them ended the whole. */
  within(index) {
    const place = `Bundle.entry[${index}]`;
    const issues = this.issues.filter(isError).map((one) => ({
      ...one,
      expression: [place, ...(one.expression ?? [])],
      diagnostics: `${place}: ${one.details.text}`,
    }));
    return new FhirError(this.status, issues);
  }
}

function issue(status, text, expression) {
  return {
    severity: 'error',
    code: CODES[status] ?? 'exception',
    details: { text },
    diagnostics: text,
    ...(expression && { expression: [expression] }),
  };
}
