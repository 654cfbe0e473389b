// What a JSON Schema (the part of 2020-12 that workflows use) asks for. Pure: no element in here.

import { label, sentenceCase } from "../lib/words.js";

const LONG = 200; // characters; what may be longer gets several lines

/**
 * Which kind of field takes a value of `schema`: "document", "choice", "fixed", "switch", "integer", "number", "text",
 * "lines", "date", "date-time", "list", "object", or "json" for what no field is made for.
 */
export function kindOf(schema) {
  if (Array.isArray(schema.enum)) return "choice";
  if ("const" in schema) return "fixed";
  const type = typeOf(schema);
  if (type === "string") return kindOfText(schema);
  if (type === "boolean") return "switch";
  if (type === "integer" || type === "number") return type;
  if (type === "array" && isSchema(schema.items)) return "list";
  if (type === "object" && isSchema(schema.properties) && Object.keys(schema.properties).length > 0) return "object";
  return "json";
}

function kindOfText({ format, maxLength, contentMediaType }) {
  if (format === "document-id") return "document";
  if (format === "date" || format === "date-time") return format;
  return contentMediaType !== undefined || format === "multiline" || maxLength > LONG ? "lines" : "text";
}

/** The one type of `schema`, null aside; undefined if it leaves the type open. */
export function typeOf({ type }) {
  const types = [type].flat().filter((each) => each !== "null");
  return types.length === 1 ? types[0] : undefined;
}

const isSchema = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether `schema` takes null. */
export function takesNull({ type }) {
  return Array.isArray(type) && type.includes("null");
}

/** What a property is called. */
export function titleOf(schema, name) {
  return schema.title || label(name);
}

/** What a person should know before the value is entered, in one line. */
export function hintOf(schema) {
  const { description, minimum, maximum, examples, default: fallback } = schema;
  const parts = [description && withStop(sentenceCase(description))];
  if (minimum !== undefined && maximum !== undefined) parts.push(`From ${minimum} to ${maximum}.`);
  else if (minimum !== undefined) parts.push(`At least ${minimum}.`);
  else if (maximum !== undefined) parts.push(`At most ${maximum}.`);
  if (Array.isArray(examples) && ["string", "number"].includes(typeof examples[0]) && fallback === undefined) {
    parts.push(`For example: ${examples[0]}`);
  }
  return parts.filter(Boolean).join(" ");
}

const withStop = (text) => (/[.!?…:]$/.test(text) ? text : `${text}.`);

/** What is wrong with a text, or null. */
export function faultOfText(text, { minLength = 0, maxLength = Infinity, pattern, format }) {
  const length = [...text].length; // JSON Schema counts code points
  if (length < minLength) return `Too short: at least ${minLength} characters.`;
  if (length > maxLength) return `Too long: ${length} characters, and at most ${maxLength} are taken.`;
  if (format === "email" && !/^[^@\s]+@[^@\s]+$/.test(text)) return "This is no e-mail address: name@example.org.";
  if (format === "uri" && !URL.canParse(text)) return "This is no address: https://example.org.";
  if (pattern !== undefined && !matches(text, pattern)) return `This does not have the form that is asked for: ${pattern}`;
  return null;
}

function matches(text, pattern) {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true; // not a pattern of JavaScript's; the service decides
  }
}

/** What is wrong with a number, or null. */
export function faultOfNumber(value, schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
  if (typeOf(schema) === "integer" && !Number.isInteger(value)) return "This must be a whole number.";
  if (value < minimum) return `This must be at least ${minimum}.`;
  if (value > maximum) return `This must be at most ${maximum}.`;
  if (value <= exclusiveMinimum) return `This must be more than ${exclusiveMinimum}.`;
  if (value >= exclusiveMaximum) return `This must be less than ${exclusiveMaximum}.`;
  if (multipleOf > 0 && Math.abs(value / multipleOf - Math.round(value / multipleOf)) > 1e-9) {
    return `This must be a multiple of ${multipleOf}.`;
  }
  return null;
}

/** What is wrong with the length of a list, or null. */
export function faultOfList(length, { minItems = 0, maxItems = Infinity }) {
  if (length < minItems) return `At least ${minItems} ${minItems === 1 ? "entry is" : "entries are"} needed.`;
  if (length > maxItems) return `At most ${maxItems} ${maxItems === 1 ? "entry is" : "entries are"} taken.`;
  return null;
}
