"use strict";
// Old JavaScript throughout, and SHA-256 by hand: browsers offer crypto.subtle on https alone.
(function () {
  // FIPS 180-4 sections 4.2.2 and 5.3.3: of the cube roots of the first 64 primes, of the square roots of the first 8.
  var ROUNDS = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
  ];
  var START = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

  function rotated(word, by) {
    return (word >>> by) | (word << (32 - by));
  }

  // FIPS 180-4 section 6.2. text: characters up to U+00FF, each one byte.
  function sha256(text) {
    var state = START.slice();
    var blocks = (text.length + 72) >> 6;
    var words = [];
    var i, t, w, a, b, c, d, e, f, g, h, one, two;
    for (i = 0; i < blocks * 16; i += 1) {
      words.push(0);
    }
    for (i = 0; i < text.length; i += 1) {
      words[i >> 2] |= text.charCodeAt(i) << (24 - (i % 4) * 8);
    }
    words[text.length >> 2] |= 0x80 << (24 - (text.length % 4) * 8);
    words[words.length - 1] = text.length * 8;
    for (i = 0; i < words.length; i += 16) {
      w = words.slice(i, i + 16);
      a = state[0]; b = state[1]; c = state[2]; d = state[3];
      e = state[4]; f = state[5]; g = state[6]; h = state[7];
      for (t = 0; t < 64; t += 1) {
        if (t >= 16) {
          one = rotated(w[t - 15], 7) ^ rotated(w[t - 15], 18) ^ (w[t - 15] >>> 3);
          two = rotated(w[t - 2], 17) ^ rotated(w[t - 2], 19) ^ (w[t - 2] >>> 10);
          w[t] = (w[t - 16] + one + w[t - 7] + two) | 0;
        }
        one = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[t] + w[t];
        two = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g; g = f; f = e;
        e = (d + one) | 0;
        d = c; c = b; b = a;
        a = (one + two) | 0;
      }
      t = [a, b, c, d, e, f, g, h];
      state = state.map(function (word, n) {
        return (word + t[n]) | 0;
      });
    }
    return state.map(function (word) {
      return ("0000000" + (word >>> 0).toString(16)).slice(-8);
    }).join("");
  }

  // "" where nobody is signed in.
  function browserState() {
    var wanted = document.body.getAttribute("data-cookie") + "=";
    var cookies = document.cookie.split("; ");
    for (var i = 0; i < cookies.length; i += 1) {
      if (cookies[i].indexOf(wanted) === 0) {
        return cookies[i].slice(wanted.length);
      }
    }
    return "";
  }

  // Session Management section 3.2: "client_id hash.salt"
  function answer(message, origin) {
    var asked = typeof message === "string" ? /^([^ ]+) ([0-9a-f]{64})\.([A-Za-z0-9_-]+)$/.exec(message) : null;
    if (!asked) {
      return "error";
    }
    var text = [asked[1], origin, browserState(), asked[3]].join(" ");
    return sha256(unescape(encodeURIComponent(text))) === asked[2] ? "unchanged" : "changed";
  }

  window.addEventListener("message", function (event) {
    // Only a page of the web has an origin to answer to.
    if (event.source && /^https?:/.test(event.origin)) {
      event.source.postMessage(answer(event.data, event.origin), event.origin);
    }
  }, false);
})();
