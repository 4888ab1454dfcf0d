// Every string that a person reads, by language: `t("found", {n: 3})`.
import en from "./words/en.js";
import zh from "./words/zh.js";

export const LANGUAGES = { en, zh };

/** A function that says things in `lang`. A string with `{n}` may be given as {one, other}. */
export function speaker(lang) {
  const words = LANGUAGES[lang] || en;
  const plural = new Intl.PluralRules(lang);
  const number = new Intl.NumberFormat(lang);
  const t = (key, values = {}) => {
    let said = words[key];
    if (said === undefined) throw new Error(`no words for ${key} in ${lang}`);
    if (typeof said !== "string") said = said[plural.select(values.n)] ?? said.other;
    return said.replace(/\{(\w+)\}/g, (_, name) =>
      typeof values[name] === "number" ? number.format(values[name]) : String(values[name]),
    );
  };
  t.lang = lang;
  t.has = (key) => words[key] !== undefined;
  return t;
}
