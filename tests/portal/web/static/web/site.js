// The page of uploads. tus-js-client sends the bytes; this decides what is sent, and tells a person how it goes.
"use strict";

const page = document.querySelector("main").dataset;
const MAX_SIZE = Number(page.maxSize);
const REFUSED = new Set(page.refused.split(" "));

const AT_ONCE = 3; // a browser has six connections to a host, and the page needs some
const CHUNK = 64 * 1024 * 1024; // whole parts of the store, and some proxies take no larger body
const SAMPLE = 1000 * 1000;
const DELAYS = [0, 500, 1000, 2000, 4000, 8000, ...Array(360).fill(10000)]; // an hour, then it waits for a person

// ---- words

function human(size) {
  if (size < 1000) return `${size} byte${size === 1 ? "" : "s"}`;
  let unit;
  for (unit of ["kB", "MB", "GB", "TB"]) {
    size /= 1000;
    if (size < 999.95) break;
  }
  return `${size.toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

function speedOf(bytes) {
  const rate = bytes / 1e6;
  return `${rate.toFixed(rate < 1 ? 2 : rate < 100 ? 1 : 0)} MB/s`;
}

function timeOf(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s left`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min left`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min left` : `${Math.round(hours / 24)} days left`;
}

function alertOf(text) {
  const box = document.getElementById("alert").content.cloneNode(true).firstElementChild;
  box.querySelector("button").addEventListener("click", () => {
    box.remove();
    document.getElementById("choose").focus();
  });
  document.getElementById("alerts").append(box);
  box.querySelector("p").textContent = text; // once it is in the page, so that a screen reader hears it
}

function tell(text) {
  document.getElementById("status").textContent = text;
}

// ---- what may be uploaded

function reasonAgainst(file) {
  if (file.size > MAX_SIZE) return tooLarge(page.limit);
  const name = file.name.replace(/[. ]+$/, "").toLowerCase();
  const dot = name.lastIndexOf(".");
  return dot >= 0 && REFUSED.has(name.slice(dot + 1)) ? page.reason : "";
}

// How programs of Linux, macOS and Java begin, and scripts.
const STARTS = [
  ...["\x7fELF", "\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe"],
  ...["\xca\xfe\xba\xbe", "\xca\xfe\xba\xbf", "#!/", "#! /", "#!\t/"],
];

async function isProgram(file) {
  const head = new Uint8Array(await file.slice(0, 1024).arrayBuffer());
  const start = String.fromCharCode(...head.slice(0, 4));
  if (STARTS.some((one) => start.startsWith(one))) return true;
  return start.startsWith("MZ") && head.some((byte) => byte < 9); // of Windows, and no text that begins so
}

// Tells the same file from another one of its name and size. It needs a safe context, so it may be missing.
async function fingerprintOf(file) {
  const pieces = [file];
  if (file.size > 64 * SAMPLE) {
    const middle = Math.floor(file.size / 2);
    const spans = [[0, SAMPLE], [middle, middle + SAMPLE], [file.size - SAMPLE, file.size]];
    pieces.splice(0, 1, ...spans.map(([from, to]) => file.slice(from, to)), String(file.lastModified));
  }
  const data = await new Blob(pieces).arrayBuffer();
  if (!crypto.subtle) return String(file.lastModified);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- uploads

const BUTTONS = {
  waiting: ["pause", "cancel"],
  uploading: ["pause", "cancel"],
  storing: [],
  paused: ["resume", "cancel"],
  lost: ["retry", "cancel"],
  failed: ["retry", "cancel"],
  loggedout: ["login", "retry", "cancel"],
  unfinished: ["resume", "cancel"], // its file is not known here
  elsewhere: [],
  stored: [],
};
const RUNNING = new Set(["uploading", "storing", "lost"]);

// The status that a request failed with, 0 if there was no answer.
function statusOf(error) {
  return error.originalResponse ? error.originalResponse.getStatus() : 0;
}

const items = [];
let made = 0;
const channel = "BroadcastChannel" in window ? new BroadcastChannel("portal") : null;

class Item {
  constructor({ name, size, fingerprint, url = null, file = null, type = "" }) {
    Object.assign(this, { name: name || "A file without a name", size, fingerprint, url, file, type });
    this.key = JSON.stringify([name, size, fingerprint]);
    this.state = "unfinished";
    this.sent = 0;
    this.note = "";
    this.samples = [];
    this.element = document.getElementById("upload").content.cloneNode(true).firstElementChild;
    const title = this.element.querySelector(".name");
    title.id = `upload-${++made}`;
    title.textContent = this.name;
    this.element.querySelector(".size").textContent = size === null ? "" : human(size);
    this.bar = this.element.querySelector("progress");
    this.bar.setAttribute("aria-label", `Progress of ${this.name}`);
    for (const button of this.element.querySelectorAll("button")) {
      button.setAttribute("aria-describedby", title.id);
      button.addEventListener("click", () => this[button.dataset.do]());
    }
    items.push(this);
    document.querySelector("#uploads ul").prepend(this.element);
    this.show();
  }

  // What the person can do

  pause() {
    this.stop();
    this.become("paused");
  }

  resume() {
    if (this.file) this.queue();
    else chooseFor(this);
  }

  retry() {
    this.resume();
  }

  async cancel() {
    const url = this.url;
    this.stop();
    this.remove();
    tell(`The upload of ${this.name} is cancelled.`);
    this.say("gone");
    if (!url) return;
    try {
      await tus.Upload.terminate(url, { retryDelays: [0, 1000, 3000, 10000] });
    } catch (error) {
      const status = statusOf(error);
      const isGone = status === 410 || (status === 404 && !(await loggedOut()));
      if (!isGone) alertOf(`${this.name} could not be removed from the server. It is listed again when you come back.`);
    }
  }

  // How it goes

  queue() {
    if (this.upload) this.upload.abort();
    this.become("waiting");
    startNext();
  }

  // In one tab at a time: the lock is held until the upload ends or pauses.
  async start() {
    this.become("uploading", "Connecting…");
    if (this.release || !navigator.locks) return this.send();
    const turn = (this.turn = (this.turn || 0) + 1);
    await this.unlocked;
    const isOver = () => turn !== this.turn || this.state !== "uploading"; // a person was faster
    if (isOver()) return;
    this.unlocked = navigator.locks.request(`upload ${this.key}`, { ifAvailable: true }, (lock) => {
      if (isOver()) return undefined;
      if (!lock) {
        this.heard = Date.now();
        return this.become("elsewhere");
      }
      const ended = new Promise((resolve) => (this.release = resolve));
      this.send();
      return ended;
    });
  }

  send() {
    this.samples = [];
    if (!this.upload) {
      this.upload = new tus.Upload(this.file, {
        endpoint: this.url ? null : page.uploads,
        uploadUrl: this.url,
        chunkSize: CHUNK,
        retryDelays: DELAYS,
        storeFingerprintForResuming: false, // the server lists what is unfinished, to all browsers of a person
        metadata: { filename: this.name, filetype: this.type, fingerprint: this.fingerprint },
        onUploadUrlAvailable: () => {
          this.url = this.upload.url;
          this.upload.options.endpoint = null; // else any trouble on resuming begins a new upload
        },
        onProgress: (sent) => this.progressed(sent),
        onShouldRetry: (error) => this.shouldRetry(error),
        onError: (error) => this.failed(error),
        onSuccess: () => this.finished(),
      });
    }
    this.upload.start();
  }

  stop() {
    if (this.upload) this.upload.abort();
    if (this.release) this.release();
    this.release = null;
  }

  progressed(sent) {
    this.sent = sent;
    const now = performance.now();
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > 5000) this.samples.shift();
    const state = sent === this.size && this.size > 0 ? "storing" : "uploading";
    if (state !== this.state || this.note) this.become(state);
  }

  shouldRetry(error) {
    const status = statusOf(error);
    const again = [0, 409, 423, 500, 502, 503, 504].includes(status);
    if (status === 0) this.lookAtFile();
    if (again) this.become("lost", navigator.onLine ? "The connection to the server is lost. Trying again…" : OFFLINE);
    return again && navigator.onLine;
  }

  // A file that was changed after it was chosen cannot be read, which looks like a connection that is lost.
  async lookAtFile() {
    try {
      await this.file.slice(0, 1).arrayBuffer();
    } catch {
      if (this.state === "lost") this.unreadable();
    }
  }

  unreadable() {
    this.stop();
    this.file = this.upload = null;
    this.become("failed", "The file was changed, moved or deleted after you had chosen it. Choose it again.");
  }

  async failed(error) {
    const status = statusOf(error);
    if (!navigator.onLine) return this.become("lost", OFFLINE); // goes on by itself
    if (!error.originalRequest) return this.unreadable();
    this.stop();
    if (status && status < 500 && (await loggedOut())) {
      return this.become("loggedout", "You are logged out. Log in again, and the upload goes on.");
    }
    if (status === 404 || status === 410) {
      this.url = this.upload = null;
      this.sent = 0;
      const why = status === 410 ? "was kept for some days, and has expired" : "is not on the server any more";
      return this.become("failed", `What had been uploaded ${why}. Retry begins again.`);
    }
    const answer = error.originalResponse ? error.originalResponse.getBody().trim() : "";
    if ([400, 403, 413, 422].includes(status)) {
      const why = status === 413 ? tooLarge(await limitNow()) : answer || page.reason;
      alertOf(`${this.name} was not uploaded. ${why}`);
      return this.remove();
    }
    const why = status === 507 ? "The server has no room for it." : "The server does not answer as it should.";
    this.become("failed", status ? why : "The server cannot be reached.");
  }

  async finished() {
    this.stop();
    this.become("storing");
    this.say("done");
    const isListed = await this.giveWay();
    tell(`${this.name} is uploaded.`);
    if (isListed) return;
    this.sent = this.size;
    this.become("stored", "It is uploaded. The list cannot be shown now.");
    do await new Promise((resolve) => setTimeout(resolve, 5000));
    while (!(await this.giveWay()));
  }

  // To its row among the stored files, if the list can be had.
  async giveWay() {
    const row = await refresh(this.url.split("/").pop());
    if (row === undefined) return false;
    if (row && !row.isConnected) {
      this.element.after(row); // the list shows another page
      this.becomeRow(row);
    }
    this.remove();
    return true;
  }

  becomeRow(row) {
    const focused = this.element.contains(document.activeElement);
    this.element.remove();
    if (focused) row.querySelector("button, a").focus();
    this.remove();
  }

  remove() {
    const focused = this.element.contains(document.activeElement);
    const index = items.indexOf(this);
    if (index >= 0) items.splice(index, 1);
    this.element.remove();
    showSections();
    if (focused) document.getElementById("choose").focus();
    startNext();
  }

  // What the person sees

  become(state, note = "") {
    this.state = state;
    this.note = note;
    this.show();
    if (["paused", "failed", "loggedout"].includes(state)) this.say("paused");
    if (["lost", "failed", "loggedout"].includes(state)) tell(`${this.name}: ${note}`);
    if (!RUNNING.has(state)) startNext();
  }

  show() {
    const focused = this.element.contains(document.activeElement);
    const share = this.size ? Math.min(1, this.sent / this.size) : 0;
    this.bar.value = share;
    this.element.dataset.state = this.state;
    this.element.querySelector(".state").textContent = this.words(`${Math.floor(share * 100)} %`);
    const foreign = this.state === "unfinished" && !this.fingerprint;
    const shown = foreign ? ["cancel"] : BUTTONS[this.state];
    for (const button of this.element.querySelectorAll("[data-do]")) {
      button.hidden = !shown.includes(button.dataset.do);
    }
    const now = document.activeElement; // some browsers take the focus from what is hidden at once
    if (focused && (now.hidden || !this.element.contains(now))) {
      (this.element.querySelector("[data-do]:not([hidden])") || this.element).focus();
    }
    showSections();
  }

  words(percent) {
    if (this.note) return this.note;
    switch (this.state) {
      case "waiting":
        return "Waits for its turn";
      case "storing":
        return "All is sent. The server stores it…";
      case "paused":
        return `Paused at ${percent}`;
      case "unfinished":
        if (!this.fingerprint) return `${percent} is uploaded. It was begun by another program.`;
        return `${percent} is uploaded. Choose the same file again to go on.`;
      case "elsewhere":
        return `${percent}, in another tab or window`;
      default:
        return [percent, speedOf(this.speed()), timeOf((this.size - this.sent) / this.speed())].filter(Boolean).join(" · ");
    }
  }

  speed() {
    if (this.samples.length < 2) return 0;
    const [from, before] = this.samples[0];
    const now = performance.now();
    return now > from ? Math.max(0, ((this.sent - before) / (now - from)) * 1000) : 0;
  }

  // Other tabs

  say(what) {
    if (!channel) return;
    const { key, name, size, fingerprint, url, sent } = this;
    channel.postMessage({ what, item: { key, name, size, fingerprint, url, sent } });
  }

  hear(what, { url, sent }) {
    if (RUNNING.has(this.state)) return;
    this.url = this.url || url;
    this.sent = sent;
    this.heard = Date.now();
    if (what === "gone") this.remove();
    else if (what === "done") this.become("elsewhere");
    else if (what === "paused") this.become(this.file ? "paused" : "unfinished");
    else if (this.state === "elsewhere") this.show();
    else this.become("elsewhere");
  }
}

const OFFLINE = "You are offline. The upload goes on when you are back.";
const LOGGED_OUT = "You are logged out. Log in again in another tab, and then try again here.";
const tooLarge = (limit) => `This file is larger than ${limit}.`;

function showSections() {
  const list = document.querySelector("#uploads ul");
  document.getElementById("uploads").hidden = !list.children.length;
}

function startNext() {
  const running = items.filter((item) => RUNNING.has(item.state)).length;
  const waiting = items.filter((item) => item.state === "waiting");
  for (const item of waiting.slice(0, Math.max(0, AT_ONCE - running))) item.start();
}

// ---- choosing files

let wanted = null; // the upload whose button has opened the dialog

function chooseFor(item) {
  wanted = item;
  document.getElementById("choose").click();
}

async function add(file, expected) {
  let reason = reasonAgainst(file);
  let fingerprint;
  try {
    if (!reason && (await isProgram(file))) reason = page.reason;
    if (reason) return alertOf(`${file.name} was not uploaded. ${reason}`);
    fingerprint = await fingerprintOf(file);
  } catch {
    return alertOf(`${file.name} was not uploaded. It could not be read: is it a folder, or has it been moved?`);
  }
  const key = JSON.stringify([file.name, file.size, fingerprint]);
  if (expected && expected.key !== key) {
    return alertOf(`${file.name} is not the file that was begun as ${expected.name}: it differs. Choose the same file as before, or cancel this upload.`);
  }
  const same = items.filter((item) => item.key === key);
  if (same.some((item) => RUNNING.has(item.state) || ["waiting", "elsewhere"].includes(item.state))) {
    return alertOf(`${file.name} is being uploaded already.`);
  }
  const isOlder = (item) => item.name === file.name && item.fingerprint && !item.file && item.state !== "elsewhere";
  if (!same.length && items.some(isOlder)) {
    alertOf(`${file.name} is not the same as when its upload was begun, so it is uploaded anew. Cancel the old upload if nobody needs it.`);
  }
  const item = expected || same[0] || new Item({ name: file.name, size: file.size, fingerprint, type: file.type });
  item.file = file;
  item.upload = null;
  item.queue();
}

async function addAll(files, expected = null) {
  for (const file of files) await add(file, expected);
}

document.getElementById("choose").addEventListener("change", (event) => {
  const files = Array.from(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
  addAll(files, wanted);
  wanted = null;
});
document.getElementById("choose").addEventListener("cancel", () => (wanted = null));
document.querySelector("#drop label").addEventListener("click", () => (wanted = null));

const drop = document.getElementById("drop");
const carriesFiles = (event) => event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  const files = [];
  for (const entry of event.dataTransfer.items) {
    const folder = entry.webkitGetAsEntry && entry.webkitGetAsEntry();
    if (folder && folder.isDirectory) alertOf(`${folder.name} is a folder. Choose the files in it.`);
    else if (entry.kind === "file") files.push(entry.getAsFile());
  }
  addAll(files);
});

// ---- the list of stored files

async function loggedOut() {
  try {
    return (await fetch(location.pathname, { redirect: "manual" })).type === "opaqueredirect";
  } catch {
    return false;
  }
}

async function load(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  if (response.redirected) throw new Error(LOGGED_OUT);
  if (!response.ok) throw new Error("The server does not answer as it should.");
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// The server may have been started again with another limit than this page knows.
async function limitNow() {
  try {
    return (await load(location.pathname)).querySelector("main").dataset.limit;
  } catch {
    return page.limit;
  }
}

function showFiles(loaded) {
  const focused = document.activeElement && document.activeElement.id;
  const files = document.adoptNode(loaded.getElementById("files"));
  localise(files);
  document.getElementById("files").replaceWith(files);
  for (const item of [...items]) {
    const row = item.url && document.getElementById(`file-${item.url.split("/").pop()}`);
    if (row) item.becomeRow(row); // never are both in the page
  }
  if (focused && document.activeElement.id !== focused) {
    const same = document.getElementById(focused);
    if (same) same.focus();
  }
}

let asked = 0;
let shown = 0; // which list was asked for last, of those that are shown: an answer may come late

// Shows what has become new on the first page. Gives the row of a file, which is in the page if its list is shown, null
// if the first page has it not, and undefined if nobody can tell.
async function refresh(id) {
  const turn = ++asked;
  try {
    const loaded = await load(location.pathname);
    if (turn > shown && document.getElementById("files").dataset.page === "1") {
      shown = turn;
      showFiles(loaded);
    }
    const there = document.getElementById(`file-${id}`);
    const row = there || loaded.getElementById(`file-${id}`);
    if (row && !there) localise(document.adoptNode(row));
    return row;
  } catch {
    return undefined;
  }
}

async function turnTo(url) {
  try {
    showFiles(await load(url));
    document.getElementById("files-heading").focus();
    return true;
  } catch (error) {
    alertOf(`The list could not be shown. ${error.message}`);
    return false;
  }
}

window.addEventListener("popstate", () => turnTo(location.href));

function localise(element) {
  const form = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of element.querySelectorAll("time")) time.textContent = form.format(new Date(time.dateTime));
}

document.querySelector("main").addEventListener("click", async (event) => {
  const link = event.target.closest(".pages a");
  if (link) {
    event.preventDefault(); // a page that is left would end its uploads
    if (await turnTo(link.href)) history.pushState(null, "", link.href);
    return;
  }
  const row = event.target.closest("li.file");
  const button = row && event.target.closest("[data-do]");
  if (!button) return;
  if (button.dataset.do === "delete") return askToDelete(row);
  if (button.dataset.do === "preview") {
    preview(row, button.dataset.kind);
    if (!(await isThere(row))) document.getElementById("preview").close();
  } else if (event.isTrusted) {
    event.preventDefault(); // a browser would save the page to log in as if it were the file
    if (await isThere(row)) button.click();
  }
});

async function isThere({ dataset: { url, name } }) {
  try {
    const response = await fetch(url, { method: "HEAD", redirect: "manual" });
    if (response.ok) return true;
    if (response.type === "opaqueredirect") alertOf(`${name} cannot be opened. ${LOGGED_OUT}`);
    else if (response.status === 404) alertOf(`${name} is not there any more.`);
    else alertOf(`${name} cannot be opened. The server does not answer as it should. Try again.`);
    if (response.status === 404) refresh("");
  } catch {
    alertOf(`${name} cannot be opened. The server cannot be reached. Try again.`);
  }
  return false;
}

function preview(row, kind) {
  const dialog = document.getElementById("preview");
  const { url, name } = row.dataset;
  document.getElementById("preview-name").textContent = name;
  const element = document.createElement({ image: "img", pdf: "iframe" }[kind] || kind);
  element.src = url;
  if (kind === "image") element.alt = name;
  else if (kind === "pdf") element.title = name;
  else Object.assign(element, { controls: true, preload: "metadata" }).setAttribute("aria-label", name);
  element.addEventListener("error", () => {
    const text = document.createElement("p");
    text.textContent = "This browser cannot show the file. Download it, and open it with another program.";
    element.replaceWith(text);
  });
  dialog.querySelector(".shown").replaceChildren(element);
  dialog.showModal();
}

document.querySelector("#preview button").addEventListener("click", () => document.getElementById("preview").close());
document.getElementById("preview").addEventListener("close", (event) => {
  const shown = event.target.querySelector(".shown");
  if (shown.firstChild && shown.firstChild.pause) shown.firstChild.pause();
  shown.replaceChildren();
});

function askToDelete(row) {
  const dialog = document.getElementById("delete");
  document.getElementById("delete-question").textContent = `Delete ${row.dataset.name}?`;
  dialog.returnValue = "keep";
  dialog.onclose = () => dialog.returnValue === "delete" && deleteFile(row);
  dialog.showModal();
}

async function deleteFile(row) {
  const { url, name } = row.dataset;
  try {
    const [, token] = document.cookie.match(/\bcsrftoken=([^;]*)/) || [, ""]; // a new one after each log-in in any tab
    const response = await fetch(`${url}delete/`, { method: "POST", headers: { "X-CSRFToken": token }, redirect: "manual" });
    const isRefused = response.type === "opaqueredirect" || response.status === 403;
    if (isRefused && (await loggedOut())) throw new Error(LOGGED_OUT);
    if (!response.ok && response.status !== 404) throw new Error("The server does not answer as it should. Try again.");
  } catch (error) {
    const lost = error instanceof TypeError;
    return alertOf(`${name} was not deleted. ${lost ? "The server cannot be reached. Try again." : error.message}`);
  }
  if (channel) channel.postMessage({ what: "deleted" });
  shown = ++asked; // what was asked before has the file still
  row.remove();
  showSections();
  document.getElementById("files-heading").focus();
  tell(`${name} is deleted.`);
  try {
    showFiles(await load(location.href));
  } catch {} // the row is gone, and the rest of the list is as it was
}

// ---- other tabs, and coming back

if (channel) {
  channel.addEventListener("message", async ({ data: { what, item } }) => {
    if (what === "opened") return goOn(); // a person may have logged in again
    if (what === "deleted") return refresh("");
    let mine = items.find((one) => one.key === item.key && !RUNNING.has(one.state));
    if (!mine && ["running", "paused"].includes(what)) mine = new Item(item);
    if (mine) mine.hear(what, item);
    if (what !== "done") return;
    await refresh("");
    if (mine) mine.remove();
  });
  window.addEventListener("pagehide", () => {
    for (const item of items) if (RUNNING.has(item.state)) item.say("paused");
  });
}

setInterval(() => {
  for (const item of items) {
    if (RUNNING.has(item.state)) {
      item.say("running");
      item.show();
    } else if (item.state === "elsewhere" && Date.now() - item.heard > 4000) {
      item.become(item.file ? "paused" : "unfinished"); // the other tab has ended
    }
  }
}, 500);

function goOn() {
  for (const item of items) if (["lost", "loggedout"].includes(item.state) && item.file) item.queue();
}
window.addEventListener("online", goOn);
window.addEventListener("offline", () => {
  for (const item of items) {
    if (item.state !== "uploading") continue;
    if (item.upload) item.upload.abort(); // it would wait for an answer that nobody sends
    item.become("lost", OFFLINE);
  }
});
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && goOn());

// How far the uploads are that were begun before. An upload that is complete is finished by this question.
async function lookAt(item) {
  const response = await fetch(item.url, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } });
  if (response.status === 422) alertOf(`${item.name} was not uploaded. ${page.reason}`);
  if ([404, 410, 422].includes(response.status)) return item.remove();
  if (!response.ok || item.state !== "unfinished") return;
  item.sent = Number(response.headers.get("Upload-Offset"));
  if (item.size !== null && item.sent === item.size) await item.finished();
  else item.show();
}

if (channel) channel.postMessage({ what: "opened" });
localise(document);
for (const found of JSON.parse(document.getElementById("unfinished").textContent).reverse()) {
  const item = new Item(found);
  lookAt(item).catch(() => {});
}
