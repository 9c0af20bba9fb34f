// A page that is opened from a folder may start no worker, which the search is. There it runs in a
// hidden frame. Material for MkDocs recognises the name IFrameWorker, and the name of this file.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.loaded = new Promise((resolve, reject) => {
        frame.onload = () => {
          const inner = frame.contentWindow;
          inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", {data}));
          const script = frame.contentDocument.createElement("script");
          script.onload = () => resolve(inner);
          script.onerror = () => reject(new Error(`${url} could not be loaded`));
          script.src = url;
          frame.contentDocument.body.append(script);
        };
      });
      document.body.append(frame);
    }
    set onmessage(listener) {
      this.addEventListener("message", listener);
    }
    postMessage(data) {
      this.loaded.then((inner) => inner.dispatchEvent(new MessageEvent("message", {data})));
    }
    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
