// The search runs in a Worker, which browsers forbid on pages opened from a folder (file://). On these
// pages its script runs in a hidden frame instead. The offline plugin recognises this file by its name.
if (location.protocol === "file:") {
  const load = (frame, src) =>
    new Promise((resolve, reject) => {
      const script = frame.document.createElement("script");
      Object.assign(script, { src, onload: resolve, onerror: reject });
      frame.document.body.appendChild(script);
    });

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const element = document.createElement("iframe");
      element.hidden = true;
      document.body.appendChild(element);
      this.frame = element.contentWindow;
      this.frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.importScripts = (...urls) =>
        urls.reduce((before, next) => before.then(() => load(this.frame, next)), Promise.resolve());
      this.loaded = load(this.frame, url);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
