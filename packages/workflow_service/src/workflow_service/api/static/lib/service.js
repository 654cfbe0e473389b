// The HTTP interface, as functions that return what was asked for or throw a Problem.

import { currentKey } from "./key.js";

const API = new URL("api/v1/", document.baseURI);
const HEALTH = new URL("health/", document.baseURI);
const PATIENCE = 30_000; // ms; the service itself gives its database 20 s before it says 503

/** Why a request failed: HTTP status (0: no answer came), title and detail for people, and what else was said. */
export class Problem extends Error {
  constructor(status, title, detail, { kind = null, faults = [], retryAfter = null, body = {} } = {}) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.kind = kind; // the last part of the problem's type, or null
    this.faults = faults; // {field, message}: what is wrong where
    this.retryAfter = retryAfter; // seconds, or null
    this.body = body;
  }
}

async function request(path, { base = API, ...options } = {}) {
  const headers = new Headers(options.headers);
  try {
    headers.set("Authorization", `Bearer ${currentKey() ?? ""}`);
  } catch {
    throw new Problem(401, "Unauthorized", "The key holds characters that no key has."); // not a header value
  }
  let response;
  try {
    response = await fetch(new URL(path, base), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name !== "TimeoutError") throw error;
    throw new Problem(0, "No answer", "The service could not be reached.");
  }
  if (!response.ok) throw await readProblem(response);
  return response;
}

async function readProblem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy answers in HTML; the status line is what is left.
  }
  const text = (value) => (typeof value === "string" ? value : "");
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return new Problem(response.status, text(body?.title) || response.statusText || `Status ${response.status}`, text(body?.detail), {
    kind: text(body?.type).split(":").at(-1) || null,
    faults: Array.isArray(body?.errors) ? body.errors : [],
    retryAfter: Number.isNaN(seconds) ? null : seconds,
    body: body ?? {},
  });
}

async function readJson(path, { signal = null, patience = PATIENCE, ...options } = {}) {
  const signals = [signal, patience === null ? null : AbortSignal.timeout(patience)].filter((each) => each !== null);
  const response = await request(path, { ...options, signal: signals.length > 0 ? AbortSignal.any(signals) : undefined });
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "No answer", "The answer broke off.");
  }
}

function sendJson(path, body, { headers = {}, ...options } = {}) {
  const all = { "Content-Type": "application/json", ...headers };
  return readJson(path, { method: "POST", headers: all, body: JSON.stringify(body), ...options });
}

const ofRun = (id) => `runs/${encodeURIComponent(id)}`;

function queryOf(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(given.flatMap(([name, value]) => [value].flat().map((each) => [name, String(each)])));
}

/** One page of the person's runs, newest first: `{runs, next}`. `filters` may have `status` (one or several) and `workflow_name`. */
export function listRuns({ before = null, limit = 20, ...filters } = {}, signal = null) {
  return readJson(`runs?${queryOf({ limit, before, ...filters })}`, { signal });
}

export function getRun(id, signal = null) {
  return readJson(ofRun(id), { signal });
}

export function getResult(id, signal = null) {
  return readJson(`${ofRun(id)}/result`, { signal });
}

/** Open the event stream of a run, from the event after `lastEventId`; resolves to the Response. */
export function openEvents(id, lastEventId, signal) {
  const headers = { Accept: "text/event-stream" };
  if (lastEventId !== null) headers["Last-Event-ID"] = lastEventId;
  return request(`${ofRun(id)}/events`, { headers, signal });
}

/** Ask a run to end; `mode` is drain, interrupt, rollback or kill. Resolves to the run. */
export function cancelRun(id, mode) {
  return sendJson(`${ofRun(id)}/cancel`, { mode });
}

/** Let a run that stopped go on. Resolves to the run. */
export function resumeRun(id) {
  return readJson(`${ofRun(id)}/resume`, { method: "POST" });
}

/** Answer what a waiting run asks: `answers` by the question's id. Resolves to the run. */
export function answerRun(id, answers) {
  return sendJson(`${ofRun(id)}/answer`, { answers });
}

export function deleteRun(id) {
  return readJson(ofRun(id), { method: "DELETE" });
}

export function listWorkflows(signal = null) {
  return readJson("workflows", { signal });
}

/** Start a run: `{run_id, status}`. The same `key` and request, sent again, are the same run. */
export function execute(workflow, input, options, key) {
  const body = { workflow_name: workflow, input_data: input, options };
  return sendJson("workflows/execute", body, { headers: { "Idempotency-Key": key } });
}

/** A key for `execute`, never used before. */
export function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID is there on https only
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One page of the person's documents, newest first: `{documents, next, max_bytes}`. */
export function listDocuments({ before = null, limit = 50 } = {}, signal = null) {
  return readJson(`documents?${queryOf({ limit, before })}`, { signal });
}

/** The record of a document. */
export function getDocument(id, signal = null) {
  return readJson(`documents/${encodeURIComponent(id)}`, { signal });
}

export function listSamples(signal = null) {
  return readJson("samples", { signal });
}

/** Make a document of the sample `name`. */
export function takeSample(name, signal = null) {
  return readJson(`samples/${encodeURIComponent(name)}/documents`, { method: "POST", signal });
}

/** Upload a File as a document. */
export function uploadDocument(file, signal = null) {
  const body = new FormData();
  body.append("file", file, file.name);
  return readJson("documents", { method: "POST", body, signal, patience: null }); // a slow line is no silence
}

/** The external services: `{services}`. */
export function listServices(signal = null) {
  return readJson("services", { signal });
}

/** What the loops of the process that answers are doing. */
export function getLoops(signal = null) {
  return readJson("loops", { base: HEALTH, signal });
}

/** Which parts can be used: a map of names to booleans. */
export async function getChecks(signal = null) {
  try {
    return (await readJson("ready", { base: HEALTH, signal })).checks;
  } catch (error) {
    if (error instanceof Problem && error.body.checks) return error.body.checks; // 503: some cannot
    throw error;
  }
}
