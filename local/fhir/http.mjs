// Requests in, responses out.

import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { FhirError } from './outcome.mjs';

// https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
const MAX_BODY = 28 * 1024 * 1024;
const unzip = promisify(gunzip);

/** The body as bytes, unzipped. One that is too large is read to its end all the same, so that the answer is seen. */
export async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_BODY) chunks.push(chunk);
  }
  if (size > MAX_BODY) throw tooLarge();
  const body = Buffer.concat(chunks);
  switch (request.headers['content-encoding'] ?? 'identity') {
    case 'identity': return body;
    case 'gzip': return unzipped(body);
    default: throw new FhirError(415, 'Only the content encoding gzip is supported.');
  }
}

async function unzipped(body) {
  try {
    return await unzip(body, { maxOutputLength: MAX_BODY });
  } catch (error) {
    throw error.code === 'ERR_BUFFER_TOO_LARGE' ? tooLarge() : new FhirError(400, 'The body is no valid gzip.');
  }
}

function tooLarge() {
  return new FhirError(413, `A request body may have ${MAX_BODY} bytes.`);
}

/** JSON becomes a value, a form its parameters, and nothing undefined. */
export function parseBody(bytes, contentType = '') {
  if (!bytes.length) return undefined;
  const [mediaType] = contentType.toLowerCase().split(';');
  if (mediaType === 'application/x-www-form-urlencoded') return new URLSearchParams(bytes.toString());
  if (!/^application\/(fhir\+|json-patch\+)?json$/.test(mediaType.trim())) {
    throw new FhirError(415, 'The body must be application/fhir+json.');
  }
  return parseJson(bytes);
}

export function parseJson(bytes) {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    throw new FhirError(400, 'The body is no valid JSON.');
  }
}

/** Sends JSON text; `fault` may end the connection instead, cut the body off or break it. */
export function send(response, status, headers, text, fault) {
  if (fault?.kind === 'lost-reply') return response.socket.resetAndDestroy();
  const whole = Buffer.from(text ?? '');
  const half = whole.subarray(0, whole.length / 2);
  const body = fault?.kind === 'broken' ? half : whole;
  response.writeHead(status, {
    ...(text && { 'Content-Type': 'application/fhir+json; charset=utf-8' }),
    ...(status !== 204 && status !== 304 && { 'Content-Length': body.length }),
    ...headers,
  });
  if (fault?.kind === 'cutoff') return response.write(half, () => response.socket.destroy());
  return response.end(body);
}
