// Calls to the worker, one after the other.

import source from "./worker.bundle.js" with { type: "text" };

/** The error of a call that a later one of its slot has replaced. */
export class Replaced extends Error {}

export class Client {
  constructor() {
    // From a blob: a page on disk may not start a worker from a file.
    this.worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    this.waiting = [];
    this.current = null;
    this.worker.onmessage = ({ data }) => this.answer(data);
    this.worker.onerror = (event) => {
      this.answer({ error: `The worker stopped: ${event.message || "out of memory?"}` });
    };
  }

  /**
   * The result of a method of the worker.
   * @param slot a call that still waits is replaced by a later one of the same slot
   */
  call(method, args, { slot = null, onProgress = () => {}, transfer = [] } = {}) {
    if (slot) {
      const replaced = this.waiting.filter((call) => call.slot === slot);
      this.waiting = this.waiting.filter((call) => call.slot !== slot);
      for (const call of replaced) call.reject(new Replaced());
    }
    return new Promise((resolve, reject) => {
      this.waiting.push({ method, args, slot, onProgress, transfer, resolve, reject });
      this.next();
    });
  }

  next() {
    if (this.current || !this.waiting.length) return;
    this.current = this.waiting.shift();
    const { method, args, transfer } = this.current;
    this.worker.postMessage({ method, args }, transfer);
  }

  answer({ progress, result, error }) {
    if (!this.current) return;
    if (progress !== undefined) return void this.current.onProgress(progress);
    const { resolve, reject } = this.current;
    this.current = null;
    if (error === undefined) resolve(result);
    else reject(new Error(error));
    this.next();
  }

  /** Ends a fit after its step. */
  stop() {
    this.worker.postMessage({ method: "stop" });
  }
}
