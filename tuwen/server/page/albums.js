// Albums of chosen pictures.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { told, useApp, useLoad } from "./app.js";
import { albumFile, albums, changeAlbum, dropAlbum, makeAlbum, readAlbum } from "./api.js";
import { Grid } from "./grid.js";
import { Icon } from "./icons.js";
import { Button, Dialog, Failure, Skeleton, State } from "./parts.js";
import { address, follow, go } from "./route.js";

export const Albums = () => {
  const { route } = useApp();
  return route.album ? html`<${One} key=${route.album} album=${route.album} />` : html`<${All} />`;
};

function All() {
  const { t } = useApp();
  const { data, error, reload } = useLoad("albums", albums);
  return html`<section class="page wide" aria-labelledby="title">
    <h1 id="title">${t("albums")}</h1>
    ${error ? html`<${Failure} error=${error} again=${reload} />` : !data ? html`<${Skeleton} count=${4} />` : !data.albums.length
      ? html`<${State} icon="album" title=${t("album_none")}><p>${t("album_none_note")}</p></${State}>`
      : html`<ul class="covers">${data.albums.map((one) => {
          const to = { view: "albums", album: one.name };
          return html`<li key=${one.name}><a href=${address(to)} onClick=${follow(() => go(to))}>
            <span class="cover">${one.cover ? html`<img src=${`${one.cover.replace(/^\//, "")}?side=320`} alt="" loading="lazy" onLoad=${(event) => event.currentTarget.classList.add("there")} />` : html`<${Icon} name="album" size="32" />`}</span>
            <b>${one.name}</b><small>${t("album_count", { n: one.count })}</small></a></li>`;
        })}</ul>`}
  </section>`;
}

function One({ album }) {
  const app = useApp();
  const { t, selection, shown, toast } = app;
  const { data, error, reload } = useLoad(album, (signal) => readAlbum(album, signal));
  const [asking, ask] = useState(null);
  if (data) shown.current = data.hits;
  const chosen = data ? data.hits.filter((hit) => selection.has(hit)).map((hit) => hit.id) : [];
  const back = { view: "albums" };
  const tell = (problem) => toast(told(t, problem), "warn");
  const takeOut = () => changeAlbum(album, { remove: chosen }).then(() => { selection.clear(); reload(); }, tell);
  const drop = () => dropAlbum(album).then(() => go(back, { replace: true }), tell);
  const rename = (name) => changeAlbum(album, { name }).then(() => go({ view: "albums", album: name }, { replace: true }), tell);
  return html`<section class="page wide" aria-labelledby="title">
    <a class="up" href=${address(back)} onClick=${follow(() => go(back))}><${Icon} name="left" size="16" />${t("album_back")}</a>
    <header class="head"><h1 id="title">${album}</h1>${data && html`<span class="count">${t("album_count", { n: data.ids.length })}</span>`}
      <span class="space"></span>
      ${data && html`<div class="line wrap">
        ${chosen.length > 0 && html`<${Button} kind="quiet" onClick=${takeOut}>${t("album_remove")}</${Button}>`}
        <a class="button quiet" href=${albumFile(album, "zip")} download><${Icon} name="download" /><span>${t("zip")}</span></a>
        <a class="button quiet" href=${albumFile(album, "csv")} download><${Icon} name="download" /><span>${t("csv")}</span></a>
        <${Button} icon="pencil" kind="quiet" label=${t("album_rename")} onClick=${() => ask("rename")} />
        <${Button} icon="bin" kind="quiet" label=${t("album_delete")} onClick=${() => ask("delete")} /></div>`}
    </header>
    ${data?.missing > 0 && html`<p class="hint">${t("album_missing", { n: data.missing })}</p>`}
    ${error ? html`<${Failure} error=${error} again=${reload} />` : !data ? html`<${Skeleton} />` : !data.hits.length
      ? html`<${State} icon="album" title=${t("album_empty")}><p>${t("album_none_note")}</p></${State}>`
      : html`<${Grid} hits=${data.hits} label=${album} />`}
    ${asking === "delete" && html`<${Dialog} kind="small" label=${t("album_delete")} close=${() => ask(null)}>
      <h2>${t("album_delete")}</h2><p>${t("album_delete_sure", { name: album })}</p>
      <footer><${Button} kind="plain" onClick=${() => ask(null)}>${t("cancel")}</${Button}><${Button} kind="main" onClick=${drop}>${t("album_delete")}</${Button}></footer></${Dialog}>`}
    ${asking === "rename" && html`<${Dialog} kind="small" label=${t("album_rename")} close=${() => ask(null)}>
      <${Naming} title=${t("album_rename")} name=${album} button=${t("save")} close=${() => ask(null)} done=${rename} /></${Dialog}>`}
  </section>`;
}

function Naming({ title, name = "", button, close, done }) {
  const { t } = useApp();
  const [text, type] = useState(name);
  const input = useRef();
  useEffect(() => { input.current.focus(); input.current.select(); }, []);
  return html`<form onSubmit=${(event) => { event.preventDefault(); if (text.trim()) done(text.trim()); }}>
    <h2>${title}</h2>
    <label><span class="label">${t("album_name")}</span><input ref=${input} value=${text} maxlength="100" onInput=${(event) => type(event.currentTarget.value)} /></label>
    <footer><${Button} kind="plain" onClick=${close}>${t("cancel")}</${Button}><button class="button main" disabled=${!text.trim()}><span>${button}</span></button></footer>
  </form>`;
}

/** Into which album the selection goes: one that there is, or a new one. */
export function AddToAlbum({ close }) {
  const { t, selection, toast } = useApp();
  const { data, error } = useLoad("albums", albums);
  const [problem, fail] = useState(null);
  const ids = [...new Set(selection.hits().map((hit) => hit.id))];
  const added = (name) => () => { toast(t("album_added", { n: ids.length, name }), "good"); selection.clear(); close(); };
  const into = (name) => changeAlbum(name, { add: ids }).then(added(name), fail);
  const fresh = (name) => (data?.albums.some((one) => one.name === name) ? into(name) : makeAlbum(name, ids).then(added(name), fail));
  return html`<${Dialog} kind="small" label=${t("add_to_album")} close=${close}>
    ${data?.albums.length > 0 && html`<h2>${t("add_to_album")}</h2><ul class="pickone">${data.albums.map((one) => html`<li key=${one.name}><button type="button" onClick=${() => into(one.name)}>
      <span class="cover">${one.cover && html`<img class="there" src=${`${one.cover.replace(/^\//, "")}?side=256`} alt="" />`}</span><b>${one.name}</b><small>${t("album_count", { n: one.count })}</small></button></li>`)}</ul>`}
    ${(error || problem) && html`<p class="problem" role="alert">${told(t, error || problem)}</p>`}
    ${data && html`<${Naming} title=${t("album_new")} button=${t("album_make")} close=${close} done=${fresh} />`}
  </${Dialog}>`;
}
