"""The script that runs in a page and tells what is to be seen in its window.

Comes in: a page that is laid out. Goes out: `lines` of [block, left, top, right, bottom, text] and `elements` of
[role, name, value, on, left, top, right, bottom, clear], in pixels of the window and in the order of the document.
"""

SEEN = r"""
() => {
  const W = innerWidth, H = innerHeight;
  const NEVER = new Set(['SCRIPT', 'STYLE', 'SVG', 'svg', 'NOSCRIPT', 'TEMPLATE', 'SELECT', 'TEXTAREA', 'IFRAME']);
  // Of a long book most is out of the window; these hold nothing that is placed elsewhere.
  const FLOWING = new Set('P PRE TABLE TR UL OL LI DL DT DD SECTION H1 H2 H3 H4 H5 H6'.split(' '));
  const range = document.createRange();
  const inside = r => r.left >= 0 && r.top >= 0 && r.right <= W && r.bottom <= H;
  const touches = r => r.right > 0 && r.bottom > 0 && r.left < W && r.top < H && r.right > r.left && r.bottom > r.top;
  const shown = el => el.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
  const union = (a, b) => ({left: Math.min(a.left, b.left), top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right), bottom: Math.max(a.bottom, b.bottom)});
  const whole = r => [Math.max(0, Math.floor(r.left)), Math.max(0, Math.floor(r.top)),
    Math.min(W, Math.ceil(r.right)), Math.min(H, Math.ceil(r.bottom))];
  // At every few pixels: a menu may hang over the middle of a line.
  const uncovered = (r, fits) => {
    const edge = Math.min(2, (r.right - r.left) / 4), y = (r.top + r.bottom) / 2, h = r.bottom - r.top;
    const places = [[(r.left + r.right) / 2, y - h / 4], [(r.left + r.right) / 2, y + h / 4], [r.right - edge, y]];
    for (let x = r.left + edge; x < r.right - edge; x += 10) places.push([x, y]);
    return places.every(([px, py]) => {
      const hit = document.elementFromPoint(px, py);
      return hit && fits(hit);
    });
  };
  // Of a line that is partly hidden, the stretches that one sees something of.
  const shownParts = ([left, top, right, bottom], fits) => {
    const found = [];
    for (let x = left; x < right; x += 6) {
      const to = Math.min(x + 6, right), h = bottom - top;
      const seen = [0.2, 0.5, 0.8].some(share => {
        const hit = document.elementFromPoint((x + to) / 2, top + share * h);
        return hit && fits(hit);
      });
      const last = found[found.length - 1];
      if (seen && last && last[2] === x) last[2] = to;
      else if (seen) found.push([x, top, to, bottom]);
    }
    return found;
  };
  const styles = new Map();
  const style = el => {
    let found = styles.get(el);
    if (!found) {
      const css = getComputedStyle(el);
      found = {display: css.display, transform: css.textTransform, caps: css.fontVariantCaps,
        lineHeight: parseFloat(css.lineHeight)};
      styles.set(el, found);
    }
    return found;
  };
  const blockOf = el => {
    while (style(el).display === 'inline' || style(el).display === 'contents') el = el.parentElement;
    return el;
  };
  const as_shown = (text, el) => {
    const {transform, caps} = style(el);
    if (caps !== 'normal') return '\u0000';
    if (transform === 'uppercase') return text.toUpperCase();
    if (transform === 'lowercase') return text.toLowerCase();
    return transform === 'none' ? text : '\u0000';
  };
  const pieces = node => {
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter(r => r.width > 0 && r.height > 0);
    if (!rects.some(touches)) return [];
    if (rects.length === 1) {
      const text = node.data, ink = text.trim();
      if (ink) {
        range.setStart(node, text.indexOf(ink));
        range.setEnd(node, text.indexOf(ink) + ink.length);
      }
      const r = range.getBoundingClientRect();
      return [{text, box: union(r, r)}];
    }
    const found = [];
    for (let i = 0; i < node.length; i++) {
      range.setStart(node, i);
      range.setEnd(node, i + 1);
      const r = [...range.getClientRects()].filter(r => r.width > 0 && r.height > 0).pop();
      const last = found[found.length - 1];
      if (!r) {
        if (last) last.text += node.data[i];
      } else if (last && Math.abs(last.box.top - r.top) < r.height / 2 && r.left >= last.box.right - 3) {
        last.text += node.data[i];
        if (/\S/.test(node.data[i])) last.box = union(last.box, r);
      } else {
        found.push({text: node.data[i], box: union(r, r)});
      }
    }
    return found;
  };
  const blocks = new Map();
  const lines = [];
  const add = (piece, parent) => {
    const block = blockOf(parent);
    if (!blocks.has(block)) blocks.set(block, {number: blocks.size, last: null});
    const entry = blocks.get(block), line = entry.last;
    const lineHeight = style(block).lineHeight, box = {...piece.box};
    const spare = (box.bottom - box.top - lineHeight) / 2;
    if (spare > 0) { box.top += spare; box.bottom -= spare; }
    const middle = (box.top + box.bottom) / 2;
    const text = as_shown(piece.text, parent);
    if (line && middle > line.box.top && middle < line.box.bottom
        && box.left > line.box.right - 3 && box.left < line.box.right + box.bottom - box.top) {
      line.text += text;
      if (!text.trim()) return;
      line.parents.add(parent);
      line.box = union(line.box, box);
    } else if (text.trim()) {
      entry.last = {block: entry.number, el: block, parents: new Set([parent]), text, box};
      lines.push(entry.last);
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, {
    acceptNode: node => {
      if (node.nodeType === 3) return NodeFilter.FILTER_ACCEPT;
      if (NEVER.has(node.tagName) || style(node).display === 'none') return NodeFilter.FILTER_REJECT;
      if (FLOWING.has(node.tagName)) {
        const r = node.getBoundingClientRect();
        if (r.height > 0 && (r.bottom < 0 || r.top > H)) return NodeFilter.FILTER_REJECT;
      }
      return NodeFilter.FILTER_ACCEPT;
    },
  });
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.nodeType !== 3) continue;
    const parent = node.parentElement;
    const found = pieces(node);
    if (found.length && shown(parent)) for (const piece of found) add(piece, parent);
  }
  const told = [];
  for (const line of lines) {
    const text = line.text.replace(/\s+/g, ' ').trim();
    if (!text || !touches(line.box)) continue;
    // A child of the block that lies over the text is no part of it.
    const fits = hit => line.el.contains(hit) && [...line.parents].some(parent => hit.contains(parent));
    if (inside(line.box) && uncovered(line.box, fits)) told.push([line.block, ...whole(line.box), text]);
    else for (const box of shownParts(whole(line.box), fits)) told.push([line.block, ...box, '']);
  }
  const elements = [];
  for (const el of document.querySelectorAll('a[href], [data-role], h1, h2, h3, h4')) {
    const heading = /^H\d$/.test(el.tagName);
    if (heading) range.selectNodeContents(el);
    const rects = [...(heading ? range : el).getClientRects()].filter(r => r.width > 0 && r.height > 0);
    if (!rects.some(touches) || !shown(el)) continue;
    const box = rects.map(r => union(r, r)).reduce(union);
    const oneLine = rects.every(r => r.bottom - r.top > (box.bottom - box.top) * 0.6);
    const role = el.dataset.role || (heading ? 'heading' : 'link');
    const name = (el.dataset.name || el.innerText).replace(/\s+/g, ' ').trim();
    const on = el.dataset.on === undefined ? null : Number(el.dataset.on);
    // What a field holds may be longer than the field.
    const cut = role === 'field' && el.scrollWidth > el.clientWidth + 1;
    const whole_line = oneLine && (heading || rects.length === 1);
    const clear = !cut && whole_line && inside(box) && uncovered(box, hit => el.contains(hit));
    elements.push([role, name, el.dataset.value || '', on, ...whole(box), clear ? 1 : 0]);
  }
  return {lines: told, elements};
}
"""
