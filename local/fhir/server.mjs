// The FHIR R4 server of the laptop: `node local/fhir/server.mjs`, on 127.0.0.1, port FHIR_PORT (8080; 0: a free one).
// Below /fhir it answers like Azure Health Data Services; /control is an API for tests: faults.mjs, settings.mjs.

import { createServer } from 'node:http';
import { processBundle } from './bundle.mjs';
import { capabilityStatement } from './capability.mjs';
import { resolveConditionalReferences } from './conditional.mjs';
import { Faults, answerAsGateway, applyBefore, distortBundle, refuseEntries, retryHeaders } from './faults.mjs';
import { parseBody, parseJson, readBody, send } from './http.mjs';
import { importResources } from './import.mjs';
import { interact } from './interactions.mjs';
import { Latency } from './latency.mjs';
import { FhirError } from './outcome.mjs';
import { parseResource } from './parse.mjs';
import { PageTokens } from './paging.mjs';
import { Settings } from './settings.mjs';
import { Store } from './store.mjs';

const BASE_PATH = '/fhir';
const MAX_RECENT = 1000;

const settings = new Settings(process.env);
const store = new Store(() => settings.now());
const tokens = new PageTokens(() => settings.values.tokenLifetime);
const faults = new Faults();
const latency = new Latency();
let requests = 0;
let refusedBundles = 0; // whole ones, since a part of them did not parse
let recent = [];

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const isFhir = url.pathname === BASE_PATH || url.pathname.startsWith(`${BASE_PATH}/`);
  response.setHeader('Date', settings.now().toUTCString());
  if (isFhir) response.on('close', () => recordRequest(request.method, url.pathname, response));
  try {
    await (isFhir ? answerFhir(request, response, url) : answerControl(request, response, url));
  } catch (error) {
    if (request.destroyed && !request.complete) return; // the client disconnected during its request
    const refusal = error instanceof FhirError ? error : logUnexpected(error);
    send(response, refusal.status, refusal.headers, JSON.stringify(refusal.outcome));
  }
});

async function answerFhir(request, response, url) {
  const path = url.pathname.slice(BASE_PATH.length).replace(/^\/|\/$/g, '');
  const bytes = await readBody(request);
  const fault = faults.take(request.method, path);
  try {
    if (await applyBefore(fault)) return response.socket.resetAndDestroy();
    const gateway = answerAsGateway(fault);
    if (gateway) return send(response, gateway.status, gateway.headers, gateway.text);
    const readable = store.at(settings.findReadLimit());
    const context = { store, readable, tokens, base: `http://${request.headers.host}${BASE_PATH}` };
    const body = parseBody(bytes, request.headers['content-type']);
    await latency.wait(body);
    const result = execute(context, request, path, url.search, body, fault);
    return sendResult(response, context.base, result, fault, request.method);
  } catch (error) {
    if (error instanceof FhirError) error.headers = retryHeaders(fault);
    throw error;
  }
}

function execute(context, { method, headers }, path, search, body, fault) {
  if (path === '') {
    if (method !== 'POST') throw new FhirError(405, `${method} is not supported here.`);
    const bundle = processBundle(context, parseBundle(body), headers, refuseEntries(fault));
    return { status: 200, resource: distortBundle(fault, bundle) };
  }
  if (path === 'metadata' && method === 'GET') return { status: 200, resource: capabilityStatement(context.base) };
  if (path.endsWith('/_search')) return interact(context, { method, url: path + joinQueries(search, body), headers });
  // A JSON Patch is no FHIR.
  const resource = body === undefined || Array.isArray(body) ? body : parseResource(body);
  const resolved = resolveConditionalReferences(context.store, resource);
  return interact(context, { method, url: path + search, headers, body: resolved });
}

function parseBundle(body) {
  try {
    return parseResource(body);
  } catch (error) {
    refusedBundles += 1;
    throw error;
  }
}

/** The parameters of a search may be in the address and in a form: https://hl7.org/fhir/R4/http.html#search */
function joinQueries(search, form = new URLSearchParams()) {
  if (!(form instanceof URLSearchParams)) throw new FhirError(415, 'The body of a search must be a form.');
  return `?${new URLSearchParams([...new URLSearchParams(search), ...form])}`;
}

function sendResult(response, base, { status, version, resource }, fault, method) {
  const text = status === 204 || status === 304 ? undefined : (version?.json ?? JSON.stringify(resource));
  const location = version && !version.deleted && method !== 'GET'
    && { Location: `${base}/${version.type}/${version.id}/_history/${version.number}` };
  const versionHeaders = version
    && { ETag: version.etag, 'Last-Modified': new Date(version.lastUpdated).toUTCString() };
  send(response, status, { ...location, ...versionHeaders, ...retryHeaders(fault) }, text, fault);
}

async function answerControl(request, response, url) {
  const reply = (value) => send(response, 200, { 'Content-Type': 'application/json' }, JSON.stringify(value));
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /health':
      return reply({ status: 'ok' });
    case 'POST /control/faults':
      faults.add(parseJson(await readBody(request)));
      return reply({});
    case 'DELETE /control/faults':
      faults.clear();
      return reply({});
    case 'GET /control/settings':
      return reply(settings.values);
    case 'POST /control/settings':
      settings.change(parseJson(await readBody(request)));
      return reply(settings.values);
    case 'POST /control/import':
      return reply(importResources(store, settings.now(), parseJson(await readBody(request))));
    case 'POST /control/latency':
      latency.set(parseJson(await readBody(request)));
      return reply({});
    case 'GET /control/stats':
      return reply({ requests, faults: faults.injected, refusedBundles, ...store.countResources() });
    case 'GET /control/requests':
      return reply(recent.slice(-Number(url.searchParams.get('last') ?? MAX_RECENT)));
    case 'POST /control/reset':
      store.clear();
      tokens.clear();
      settings.reset();
      faults.clear();
      faults.injected = 0;
      latency.set({});
      requests = 0;
      refusedBundles = 0;
      recent = [];
      return reply({});
    default:
      throw new FhirError(404, 'This address does not exist.');
  }
}

/** Records method, path and status only: a query may hold patient data. Status 0 means unanswered. */
function recordRequest(method, path, { headersSent, statusCode }) {
  requests += 1;
  recent.push({ method, path, status: headersSent ? statusCode : 0 });
  if (recent.length > MAX_RECENT) recent.shift();
}

function logUnexpected(error) {
  console.error(error);
  return new FhirError(500, 'The server failed.');
}

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(0));
// Longer than clients keep idle connections, so that none is closed while a request is sent.
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env.FHIR_PORT ?? 8080), '127.0.0.1', () => {
  console.log(`FHIR server ready at http://127.0.0.1:${server.address().port}${BASE_PATH}`);
});
