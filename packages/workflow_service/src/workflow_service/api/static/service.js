// The HTTP interface, as functions that return what was asked for or throw a Problem.

import { currentKey } from "./key.js";

const API = new URL("api/v1/", document.baseURI);

/** Why a request failed: HTTP status (0: no answer came), title and detail for people. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  try {
    headers.set("Authorization", `Bearer ${currentKey() ?? ""}`);
  } catch {
    throw new Problem(401, "Unauthorized", "The key holds characters that no key has."); // not a header value
  }
  let response;
  try {
    response = await fetch(new URL(path, API), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
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
  const title = typeof body?.title === "string" ? body.title : response.statusText;
  const detail = typeof body?.detail === "string" ? body.detail : "";
  return new Problem(response.status, title || `Status ${response.status}`, detail);
}

async function readJson(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Problem(0, "No answer", "The answer broke off.");
  }
}

const run = (id) => `runs/${encodeURIComponent(id)}`;

/** One page of the person's runs, newest first: `{runs, next}`. */
export function listRuns(cursor = null, limit = 10) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor !== null) query.set("before", cursor);
  return readJson(`runs?${query}`);
}

export function getRun(id, signal) {
  return readJson(run(id), { signal });
}

export function getResult(id, signal) {
  return readJson(`${run(id)}/result`, { signal });
}

/** Open the event stream of a run, from the event after `lastEventId`; resolves to the Response. */
export function openEvents(id, lastEventId, signal) {
  const headers = { Accept: "text/event-stream" };
  if (lastEventId !== null) headers["Last-Event-ID"] = lastEventId;
  return request(`${run(id)}/events`, { headers, signal });
}

/** The record of a document. */
export function getDocument(id) {
  return readJson(`documents/${encodeURIComponent(id)}`);
}

export function listSamples() {
  return readJson("samples");
}

/** Make a document of the sample `name`. */
export function takeSample(name) {
  return readJson(`samples/${encodeURIComponent(name)}/documents`, { method: "POST" });
}

/** Upload a File as a document. */
export function uploadDocument(file) {
  const body = new FormData();
  body.append("file", file, file.name);
  return readJson("documents", { method: "POST", body });
}

/** Start the analysis of a document: `{run_id, status}`. */
export function analyse(documentId) {
  return readJson("workflows/execute", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      workflow_name: "contract_analysis",
      input_data: { document_id: documentId },
      options: {},
    }),
  });
}
