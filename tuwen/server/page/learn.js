// The loop: corrected captions -> a data set -> tuning -> before and after.
import { html, useEffect, useState } from "./vendor/preact.js";
import { name, told, useApp, useLoad } from "./app.js";
import { corrections, exportCorrections, startTuning, tuning, thumbnail } from "./api.js";
import { Icon } from "./icons.js";
import { Button, Spinner, Warnings } from "./parts.js";
import { above, address, follow, here } from "./route.js";

const EVERY = 2_000; // milliseconds between two looks at a running job
const SHOWN = 30;

export function Learn() {
  const { t, toast, shown, stats } = useApp();
  const { data, error } = useLoad("corrections", corrections);
  const job = useTuning();
  const [exported, set] = useState(null);
  const tell = (problem) => toast(told(t, problem), "warn");
  const state = job.data?.state;
  if (error) return html`<section class="block"><p class="problem" role="alert">${told(t, error)}</p></section>`;
  const count = data?.corrections.length ?? 0;
  const needed = data?.needed ?? 50;
  const enough = Math.max(count, stats?.captions ?? 0) >= needed; // captions of an indexed data set teach too
  const open = (one) => follow(() => { shown.current = data.corrections; above("picture", one.id); });
  return html`<section class="block learn" aria-labelledby="learn-title">
    <h2 id="learn-title">${t("learn_title")}</h2>
    <p class="lead">${t("learn_note")}</p>
    <div class="sheet">
      <div class="goal"><b>${t("learn_count", { n: count })}</b>
        <progress max=${needed} value=${Math.min(count, needed)} aria-label=${t("learn_count", { n: count })}></progress>
        <span>${count < needed ? t("learn_needed", { n: needed - count, of: needed }) : t("learn_enough")}</span></div>
      <div class="line wrap">
        <${Button} kind="quiet" icon="download" disabled=${!count} onClick=${() => exportCorrections().then(set, tell)}>${t("learn_export")}</${Button}>
        <${Button} kind="main" disabled=${!enough || state === "running"} onClick=${() => startTuning({}).then(job.reload, tell)}>${t("learn_tune")}</${Button}></div>
      ${exported && html`<p class="hint" role="status">${t("learn_exported", { n: exported.captions, data: exported.data })}
        <code class="command">tuwen tune --data ${exported.data} --from retrieval --out runs/mine</code></p>`}
      ${state === "running" && html`<div class="job"><${Spinner}>${t("learn_running")}</${Spinner}>
        <span>${[job.data.step && t("learn_step", { n: job.data.step }), job.data.seconds && t("learn_seconds", { n: Math.round(job.data.seconds) })].filter(Boolean).join(" · ")}</span>
        <p class="hint">${t("learn_running_note")}</p></div>`}
      ${state === "failed" && html`<p class="problem" role="alert">${t("learn_failed")}: ${job.data.error}</p>`}
      ${state === "done" && html`<${Outcome} job=${job.data} />`}
    </div>
    ${count > 0 && html`<details open=${count <= 6}><summary>${t("learn_list")}</summary><ul class="corrected">${data.corrections.slice(0, SHOWN).map((one) => html`<li key=${one.id}>
      <a href=${address({ ...here(), picture: one.id })} onClick=${open(one)}><img class="there" src=${thumbnail(one, 256)} alt=${name(one.file)} loading="lazy" /></a>
      <div>${one.captions.map((caption) => html`<p key=${caption.text} lang=${caption.lang}>${caption.text}</p>`)}
        ${one.made.map((caption) => html`<p key=${caption.text} class="was" lang=${caption.lang}>${t("learn_was", { text: caption.text })}</p>`)}</div></li>`)}</ul></details>`}
  </section>`;
}

function useTuning() {
  const job = useLoad("tune", tuning);
  const running = job.data?.state === "running";
  useEffect(() => {
    if (!running || job.loading) return undefined;
    const timer = setTimeout(job.reload, EVERY);
    return () => clearTimeout(timer);
  }, [running, job.loading]);
  return job;
}

const SCORES = ["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"];

/** Before and after on pictures held out, with the interval of the change; the verdict is the server's sentence. */
function Outcome({ job }) {
  const { t } = useApp();
  const keys = SCORES.filter((key) => job.before?.[key] !== undefined && job.after?.[key] !== undefined);
  const sign = new Intl.NumberFormat(t.lang, { signDisplay: "exceptZero", maximumFractionDigits: 1 });
  const one = new Intl.NumberFormat(t.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const good = job.verdict === "improved";
  return html`<div class="outcome">
    ${job.words && html`<p class=${`verdict${good ? " good" : ""}`} role="status"><${Icon} name=${good ? "check" : "learn"} /><span>${job.words[t.lang === "zh" ? 1 : 0]}</span></p>`}
    ${keys.length > 0 && html`<table><caption>${t("learn_score")}${job.n_test ? ` · ${t("learn_held", { n: job.n_test })}` : ""}</caption>
      <thead><tr><th></th><th scope="col">${t("learn_before")}</th><th scope="col">${t("learn_after")}</th><th scope="col">${t("learn_change")}</th></tr></thead>
      <tbody>${keys.map((key) => {
        const [way, k] = key.split("_r");
        const span = job.interval?.[key];
        return html`<tr key=${key}><th scope="row">${t(`learn_${way}`, { k })}<span class="pair" aria-hidden="true"><i style=${{ width: `${job.before[key]}%` }}></i><b style=${{ width: `${job.after[key]}%` }}></b></span></th>
          <td>${one.format(job.before[key])}</td><td>${one.format(job.after[key])}</td><td>${span ? `${sign.format(span[0])} … ${sign.format(span[1])}` : ""}</td></tr>`;
      })}</tbody></table>`}
    <${Warnings} lines=${job.warnings} />
    ${good && job.use && html`<p class="hint">${t("learn_use")} <code class="command">${job.use}</code></p>`}
  </div>`;
}
