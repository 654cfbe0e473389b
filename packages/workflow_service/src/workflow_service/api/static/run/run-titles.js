// What a run is called in a list: its document's name, or what it was asked for.

import { mayPass } from "../lib/explain.js";
import * as service from "../lib/service.js";

const AT_ONCE = 4; // requests
const LONGEST = 80; // characters

const titles = new Map(); // run id: promise of its title
const waiting = [];
let asking = 0;

/** The title of a run, asked for once; null if there is nothing to call it by. */
export function titleOf(id) {
  if (!titles.has(id)) titles.set(id, inTurn(() => ask(id)));
  return titles.get(id);
}

/** Forget all titles: another person may come next. */
export function forgetTitles() {
  titles.clear();
}

async function ask(id) {
  try {
    const { input_data: input } = await service.getRun(id);
    return (await nameOfDocument(input)) ?? inShort(input);
  } catch (error) {
    if (!(error instanceof service.Problem)) throw error;
    if (mayPass(error)) titles.delete(id); // to be asked for again
    return null;
  }
}

async function nameOfDocument(input) {
  if (typeof input?.document_id !== "string") return null;
  return (await service.getDocument(input.document_id)).filename;
}

function inShort(input) {
  const ofType = (type) => Object.values(input ?? {}).filter((value) => typeof value === type && value !== "");
  const text = ofType("string").join(", ") || ofType("number").join(", ");
  if (text === "") return null;
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

async function inTurn(act) {
  if (asking >= AT_ONCE) await new Promise((resolve) => { waiting.push(resolve); });
  asking += 1;
  try {
    return await act();
  } finally {
    asking -= 1;
    waiting.shift()?.();
  }
}
