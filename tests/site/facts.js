// What the tests ask of every page, in one go: a page takes longer to open than to look at.
async () => {
  await document.fonts.ready;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const root = document.documentElement;
  const words = document.querySelector("article").cloneNode(true);
  for (const element of words.querySelectorAll("pre, code, script, .katex")) element.remove();

  // In view unless folded away, with MathML for screen readers, and with the TeX that is copied.
  const isDrawn = (formula) => {
    const [katex, ...more] = formula.querySelectorAll(".katex");
    if (!katex || more.length || !katex.querySelector("math mrow")) return false;
    const box = katex.querySelector(".katex-html").getBoundingClientRect();
    if (katex.checkVisibility() && (box.width <= 1 || box.height <= 1)) return false;
    const tex = katex.querySelector('annotation[encoding="application/x-tex"]');
    return tex.textContent.trim() !== "";
  };
  // What lies left of its frame cannot be scrolled to; what lies right of it needs the keyboard.
  const isCut = (display) => {
    const left = display.querySelector(".katex-html").getBoundingClientRect().left;
    const scrolls = display.scrollWidth > display.clientWidth + 1;
    return left < display.getBoundingClientRect().left - 1 || (scrolls && display.tabIndex !== 0);
  };
  const describe = (image) => ({
    alt: image.alt,
    src: image.src.slice(0, 200),
    drawn: image.complete && image.naturalWidth > 0,
  });
  const resources = performance.getEntriesByType("resource");
  const bytes = { shared: 0, own: 0 };
  for (const entry of [...performance.getEntriesByType("navigation"), ...resources]) {
    bytes[entry.name.includes("/_static/") ? "shared" : "own"] += entry.decodedBodySize;
  }
  const displays = all(".katex-display").filter((display) => display.checkVisibility());
  return {
    title: document.title,
    lang: root.lang,
    icon: document.querySelector('link[rel~="icon"]')?.href,
    headings: all("article h1").length,
    scroll: Math.max(root.scrollWidth, document.body.scrollWidth),
    width: root.clientWidth,
    images: [...document.images].map(describe),
    links: all("a[href]").map((link) => link.href),
    formulae: all(".math").length,
    drawn: all(".math").filter(isDrawn).length,
    cut: displays.filter(isCut).map((display) => display.textContent),
    wrong: all(".katex-error, .math > code").map((element) => element.textContent),
    words: words.textContent,
    bytes,
    loaded: resources.map((entry) => entry.name),
    widgets: all('script[type="application/vnd.jupyter.widget-view+json"]').length,
  };
}
