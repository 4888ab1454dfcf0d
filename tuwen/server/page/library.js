// The state of the index, its models, and what was learned.
import { html } from "./vendor/preact.js";
import { bytes, day, name, useApp, useLoad } from "./app.js";
import { stats } from "./api.js";
import { Learn } from "./learn.js";
import { Choice, Failure } from "./parts.js";

const TASKS = ["search", "caption", "ask", "draw"];

export function Library() {
  const { t } = useApp();
  const { data, error, reload } = useLoad("stats", stats);
  if (error) return html`<${Failure} error=${error} again=${reload} />`;
  return html`<section class="page" aria-labelledby="title">
    <h1 id="title">${t("library_title")}</h1>
    ${!data ? html`<div class="bones" aria-hidden="true"><i></i><i></i><i></i></div>` : html`
      <${Facts} data=${data} />
      <${Learn} />
      <${Models} data=${data} />
      <${Places} data=${data} />`}
    <${Settings} />
  </section>`;
}

function Facts({ data }) {
  const { t } = useApp();
  const number = (value) => new Intl.NumberFormat(t.lang).format(value);
  const period = [data.first_date, data.last_date].filter(Boolean).map((date) => day(t, date));
  const facts = [
    [number(data.pictures), t("pictures")],
    [number(data.files), t("files")],
    [number(data.captions), t("captions")],
    [bytes(t, data.bytes), t("on_disk")],
  ];
  return html`<ul class="facts">${facts.map(([value, words]) => html`<li key=${words}><b>${value}</b><span>${words}</span></li>`)}
    ${period.length > 0 && html`<li class="long"><b>${[...new Set(period)].join(" – ")}</b><span>${t("period")}</span></li>`}</ul>`;
}

function Models({ data }) {
  const { t } = useApp();
  const languages = new Intl.DisplayNames([t.lang], { type: "language" });
  return html`<section class="block" aria-labelledby="models-title"><h2 id="models-title">${t("models")}</h2>
    <ul class="models">${TASKS.filter((task) => data.models[task]).map((task) => {
      const model = data.models[task];
      return html`<li key=${task} class=${model.why ? "missing" : ""}><b>${t(`model_${task}`)}</b><code>${model.name}</code>
        <span>${model.languages ? new Intl.ListFormat(t.lang, { type: "conjunction" }).format(model.languages.map((lang) => languages.of(lang))) : ""}</span>
        <em>${model.why ? t("model_missing") : model.loaded ? t("model_loaded") : t("model_ready")}</em>
        ${model.why && html`<p class="hint">${model.why}</p>`}</li>`;
    })}</ul>
    <p class="hint">${t("best_note")} <code class="command">tuwen models get best</code></p>
  </section>`;
}

function Places({ data }) {
  const { t } = useApp();
  const counted = (key, counts) => Object.keys(counts).length > 0 && html`<div><dt>${t(key)}</dt><dd>${Object.entries(counts).sort(([, a], [, b]) => b - a).map(([value, n]) => html`<span key=${value} class="chip">${value} <small>${n}</small></span>`)}</dd></div>`;
  return html`<section class="block" aria-labelledby="folders-title"><h2 id="folders-title">${t("folders")}</h2>
    <ul class="plain">${data.folders.map((folder) => html`<li key=${folder}><code>${folder}</code></li>`)}</ul>
    <dl class="counted">${counted("formats", data.formats)}${counted("cameras", data.cameras)}</dl>
    ${data.failed_count > 0 && html`<details class="failed"><summary>${t("failed", { n: data.failed_count })}</summary>
      <ul class="plain">${data.failed.map(({ file, why }) => html`<li key=${file}><b title=${file}>${name(file)}</b> <span>${why}</span></li>`)}
        ${data.failed_count > data.failed.length && html`<li>${t("failed_more", { n: data.failed_count - data.failed.length })}</li>`}</ul></details>`}
  </section>`;
}

function Settings() {
  const { t, theme, setTheme, setLang } = useApp();
  return html`<section class="block" aria-labelledby="settings-title"><h2 id="settings-title">${t("settings")}</h2>
    <dl class="settings"><div><dt>${t("language")}</dt><dd><${Choice} label=${t("language")} value=${t.lang} set=${setLang} options=${[["en", "English"], ["zh", "中文"]]} /></dd></div>
      <div><dt>${t("theme")}</dt><dd><${Choice} label=${t("theme")} value=${theme} set=${setTheme} options=${["auto", "light", "dark"].map((key) => [key, t(`theme_${key}`)])} /></dd></div></dl>
    <p class="hint">${t("local")}</p>
  </section>`;
}
