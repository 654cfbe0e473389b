// Which field is made for which schema.

import { ChoiceField, FixedField, OpenSwitchField, SwitchField } from "./choice-fields.js";
import { DocumentField } from "./document-field.js";
import { ListField, ObjectField } from "./group-fields.js";
import { kindOf, takesNull } from "./schema.js";
import { DayField, JsonField, LinesField, MomentField, NumberField, TextField } from "./text-fields.js";

const CLASSES = {
  choice: ChoiceField,
  fixed: FixedField,
  document: DocumentField,
  integer: NumberField,
  number: NumberField,
  text: TextField,
  lines: LinesField,
  date: DayField,
  "date-time": MomentField,
  list: ListField,
  object: ObjectField,
  json: JsonField,
};

/** The field for a value of `schema`; `options` are those of Field. What takes null can be left out. */
export function makeField(options) {
  const { schema } = options;
  const all = { ...options, isRequired: options.isRequired && !takesNull(schema) };
  const kind = kindOf(schema);
  if (kind !== "switch") return new CLASSES[kind](all, kind === "list" || kind === "object" ? makeField : undefined);
  return all.isRequired || "default" in schema ? new SwitchField(all) : new OpenSwitchField(all);
}
