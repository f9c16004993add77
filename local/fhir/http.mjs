// Reads request bodies and sends responses.

import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { FhirError } from './outcome.mjs';

// https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
const MAX_BODY = 28 * 1024 * 1024;
const unzip = promisify(gunzip);

/** Returns the body, decompressed. A body that is too large is read to its end, so that the client gets the 413. */
export async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_BODY) chunks.push(chunk);
  }
  if (size > MAX_BODY) throw refuseSize();
  const body = Buffer.concat(chunks);
  switch (request.headers['content-encoding'] ?? 'identity') {
    case 'identity': return body;
    case 'gzip': return decompress(body);
    default: throw new FhirError(415, 'Only the content encoding gzip is supported.');
  }
}

async function decompress(body) {
  try {
    return await unzip(body, { maxOutputLength: MAX_BODY });
  } catch (error) {
    throw error.code === 'ERR_BUFFER_TOO_LARGE' ? refuseSize() : new FhirError(400, 'The body is not valid gzip.');
  }
}

function refuseSize() {
  return new FhirError(413, `A request body may have at most ${MAX_BODY} bytes.`);
}

/** Returns the value of a JSON body, the parameters of a form, or undefined for an empty body. */
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
    throw new FhirError(400, 'The body is not valid JSON.');
  }
}

/** Sends JSON text. A fault may reset the connection, cut the body off, or send half of it. */
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
