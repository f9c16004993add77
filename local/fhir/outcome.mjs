// Errors as FHIR reports them: https://hl7.org/fhir/R4/operationoutcome.html

const CODES = {
  400: 'invalid', 404: 'not-found', 405: 'not-supported', 408: 'timeout', 409: 'conflict', 410: 'deleted',
  412: 'conflict', 413: 'too-long', 415: 'not-supported', 429: 'throttled', 501: 'not-supported', 503: 'transient',
};

export const isError = ({ severity }) => severity === 'error' || severity === 'fatal';

export class FhirError extends Error {
  /** An error with an HTTP status. `details` is a sentence, or the issues of a validation. */
  constructor(status, details, expression) {
    const issues = Array.isArray(details) ? details : [buildIssue(status, details, expression)];
    super(issues[0].details.text);
    this.status = status;
    this.issues = issues;
  }

  get outcome() {
    return { resourceType: 'OperationOutcome', issue: this.issues };
  }

  /** Returns the same error for a bundle entry. It has only the issues of severity error: they failed the bundle. */
  within(index) {
    const place = `Bundle.entry[${index}]`;
    const issues = this.issues.filter(isError).map((issue) => ({
      ...issue,
      expression: [place, ...(issue.expression ?? [])],
      diagnostics: `${place}: ${issue.details.text}`,
    }));
    return new FhirError(this.status, issues);
  }
}

function buildIssue(status, text, expression) {
  return {
    severity: 'error',
    code: CODES[status] ?? 'exception',
    details: { text },
    diagnostics: text,
    ...(expression && { expression: [expression] }),
  };
}
