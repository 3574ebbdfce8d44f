/**
 * Writes `src/generated/schema.ts` from `protocol/schema/kingpole.fbs`: where each field stands in its table.
 *
 * Not flatc's own TypeScript: its readers trust their bytes, which come from somebody else here (see
 * `src/flatbuffer.ts`), and its classes cannot be left out by a bundler. Numbers are all that is needed.
 * `--check` writes nothing and fails if the file is not what it would write.
 */
import { readFileSync, writeFileSync } from "node:fs";

const SCHEMA = new URL("../../../protocol/schema/kingpole.fbs", import.meta.url);
const TARGET = new URL("../src/generated/schema.ts", import.meta.url);

/** Splits a schema into its declarations: kind, name, body. */
function declarations(schema) {
  const bare = schema.replace(/\/\/[^\n]*/g, "");
  return [...bare.matchAll(/\b(enum|table|union)\s+(\w+)[^{]*\{([^}]*)\}/g)].map(([, kind, name, body]) => ({
    kind,
    name,
    body,
  }));
}

/** The members of an enum or union, with their numbers; a union begins with NONE. */
function members(kind, body) {
  const names = kind === "union" ? ["NONE"] : [];
  const numbered = [];
  for (const member of body.split(",").map((text) => text.trim())) {
    if (member) names.push(member);
  }
  for (const [position, member] of names.entries()) {
    const [name, number] = member.split("=").map((text) => text.trim());
    if (number !== undefined && Number(number) !== position) {
      throw new Error(`${name} = ${number}: members are numbered from 0 without gaps`);
    }
    numbered.push(`  ${name}: ${position},`);
  }
  return numbered;
}

/** The fields of a table with their slots; a field of a union takes two, its type first. */
function slots(body, unions) {
  const lines = [];
  let slot = 0;
  for (const field of body.split(";").map((text) => text.trim())) {
    if (!field) continue;
    const [name, type] = field.split(":").map((text) => text.trim());
    const camel = name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
    if (unions.has(type)) lines.push(`  ${camel}Type: ${slot++},`);
    lines.push(`  ${camel}: ${slot++},`);
  }
  return { lines, count: slot };
}

function generate(schema) {
  const found = declarations(schema);
  const unions = new Set(found.filter(({ kind }) => kind === "union").map(({ name }) => name));
  const parts = ["// Made from protocol/schema/kingpole.fbs by scripts/generate.mjs. Never edited."];
  for (const { kind, name, body } of found) {
    if (kind === "table") {
      const { lines, count } = slots(body, unions);
      parts.push(
        `/** Slots of the table ${name}. */\nexport const ${name}Slots = {\n${lines.join("\n")}${lines.length ? "\n" : ""}  fields: ${count},\n} as const;`,
      );
    } else {
      parts.push(
        `/** Numbers of the ${kind} ${name}. */\nexport const ${name} = {\n${members(kind, body).join("\n")}\n} as const;`,
      );
    }
  }
  return `${parts.join("\n\n")}\n`;
}

const text = generate(readFileSync(SCHEMA, "utf8"));
if (process.argv.includes("--check")) {
  if (readFileSync(TARGET, "utf8") !== text) {
    console.error("src/generated/schema.ts is not what protocol/schema/kingpole.fbs gives: npm run generate");
    process.exit(1);
  }
} else {
  writeFileSync(TARGET, text);
}
