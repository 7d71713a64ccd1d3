"""Takes secrets out of text before it leaves the repository's host, and again before it is written to a note."""

from __future__ import annotations

import math
import re
from collections import Counter
from fnmatch import fnmatch

SECRET_FILES = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.ovpn", "id_rsa*", "id_dsa*",
    "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pgpass", ".npmrc", ".pypirc", ".htpasswd", "htpasswd",
    "credentials", "credentials.*", "secrets", "secrets.*", "*.secret", "vault.yml", "vault.yaml", "*.tfstate",
    "kubeconfig", ".dockercfg", ".git-credentials",
)  # fmt: skip
"""Names of files whose content is never read out, whatever is in them."""

_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,8}-----.*?(?:-----END [^\n]{0,60}|\Z)", re.S)
_KNOWN = re.compile(
    r"\b(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}"
    r"|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas)-[A-Za-z0-9_-]{16,255}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,255}|xapp-[A-Za-z0-9-]{10,255}"
    r"|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,255}|sk-[A-Za-z0-9_-]{16,255}"
    r"|hf_[A-Za-z0-9]{16,255}|nvapi-[A-Za-z0-9_-]{16,255}|npm_[A-Za-z0-9]{20,255}|pypi-[A-Za-z0-9_-]{16,1000}"
    r"|AIza[A-Za-z0-9_-]{30,60}|ya29\.[A-Za-z0-9_-]{20,1000}|GOCSPX-[A-Za-z0-9_-]{20,60}"
    r"|SG\.[A-Za-z0-9_-]{16,60}\.[A-Za-z0-9_-]{16,80}|dop_v1_[a-f0-9]{40,80}|hvs\.[A-Za-z0-9_-]{20,300}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{40,80}|[0-9]{8,10}:AA[A-Za-z0-9_-]{32,34}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}(?:\.[A-Za-z0-9_-]{0,2000})?"
    r")"
)
# It may hold any sign, an @ and a slash too; digits and a slash after a host are a port.
_URL_PASSWORD = re.compile(
    r"(?P<before>[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@'\"]{0,100}:)(?!\d{1,5}[/?#])(?P<value>[^\s'\"]{1,200})(?=@)"
)
_HEADER = re.compile(r"(?i)(?P<before>\b(?:bearer|basic|token)\s{1,4})(?P<value>[A-Za-z0-9._~+/=-]{16,4000})")
_WORD = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|encryption[_-]?key|credential|auth[_-]?key)"
)
# A name as it stands before a value: in quotes, escaped ones, or an index.
_NAME = _WORD + r"[\w.-]{0,40}(?:\\{0,3}[\"'])?\]?"
# The second form has a type between: password: str = "...".
_SIGN = (
    r"(?:[ \t]{0,4}:[ \t]{0,4}[A-Za-z_][\w.\[\], |]{0,60}?[ \t]{0,4}=[ \t]{0,4}(?=[\"'`])"
    r"|[ \t]{0,4}(?::=|=>|[:=])[ \t]{0,4})"
)
# In quotes to their end, whatever is escaped in it; else to the next blank. What was cut has no end.
_QUOTED = (
    r"\"(?:\\.|[^\"\\\n]){4,4000}\"|'(?:\\.|''|[^'\\\n]){4,4000}'|`[^`\n]{4,4000}`"
    r"|\\{1,3}[\"'][^\"'\n]{4,4000}[\"']?|\"[^\"\n]{4,4000}(?=\n|\Z)|'[^'\n]{4,4000}(?=\n|\Z)"
)
# What an earlier look has taken out.
_DONE = r"(?![=>]?\[(?:secret|key|private key|random text) removed\])"
_ASSIGNMENT = re.compile(rf"(?i)(?P<before>{_NAME}{_SIGN}){_DONE}(?P<value>{_QUOTED}|[^\s\"'][^\s]{{3,4000}})")
# A line that is a name and its value, as in YAML and INI files: there a value may have blanks.
_LINE = re.compile(
    r"(?im)^(?P<before>[+-]?[ \t]{0,40}(?:- )?(?:(?:export|set|ENV|ARG)[ \t]{1,4})?[\"']?[\w.-]{0,60}"
    rf"{_NAME}{_SIGN}){_DONE}(?P<value>[^\s\"'|>][^\n]{{3,4000}}?)(?P<after>[ \t\r,;]{{0,9}})$"
)
# A block of YAML, or a value in the line below its name: all that is further in than the name. In a diff each line has
# a sign before it.
_KEY = (
    rf"^(?P<before>(?P<sign>[+ -])?(?P<indent>[ \t]{{0,40}})(?:- )?[\"']?[\w.-]{{0,60}}{_NAME}"
    r"[ \t]{0,4}:[ \t]{0,4}"
)
_FURTHER_IN = r"(?(sign)[+ -])(?P=indent)[ \t]{1,40}"
_ROW = r"\S[^\n]{0,4000}(?:\n|\Z)"
_BLOCK = re.compile(
    rf"(?im){_KEY}[|>][0-9+-]{{0,2}}[ \t]{{0,4}}\n)(?P<value>(?!{_FURTHER_IN}\[secret removed\])"
    rf"{_FURTHER_IN}{_ROW}(?:{_FURTHER_IN}{_ROW}|[+ -]?[ \t]{{0,40}}\n){{0,200}})"
)
_BELOW = re.compile(rf"(?im){_KEY}\n{_FURTHER_IN}){_DONE}(?P<value>(?![-#])[^\s:]{{4,4000}})(?=[ \t]{{0,9}}$)")
# What is told of an option in a sentence is no value of it.
_TALK = r"(?!(?:options?|flags?|arguments?|parameters?|switch|with|from|when|instead|which|that)\b(?!-))"
_OPTION = re.compile(
    rf"(?i)(?P<before>(?<![\w-])--?[\w-]{{0,40}}{_WORD}(?!-file|-stdin)[\w-]{{0,40}}[ \t]{{1,4}}){_DONE}{_TALK}"
    rf"(?P<value>{_QUOTED}|[^\s\"'-][^\s]{{3,4000}})"
)
_ELEMENT = re.compile(
    rf"(?i)(?P<before><[\w:.-]{{0,40}}{_WORD}[\w.-]{{0,40}}>){_DONE}(?P<value>[^<\n]{{4,4000}})(?=</)"
)
_NETRC = re.compile(r"(?i)(?P<before>\blogin\s{1,4}\S{1,200}\s{1,4}password\s{1,4})(?P<value>\S{1,4000})")
# What stands for a value that is elsewhere, and words that no secret is. Only the whole of a value is harmless: many a
# password begins like one of these.
_HARMLESS = re.compile(
    r"\$(?:\d|[@*]|(?-i:[A-Z][A-Z_]*)|[a-z_]*(?:pass|pwd|secret|token|key|cred|auth|user)[a-z_]*)"
    r"|\$\{[A-Za-z_][\w.]*\}|\$\{env:\w+\}|\$\([A-Z][A-Z_]*\)"
    # Not one that brings its own default.
    r"|\$?\{\{(?![^{}]*(?:default|\bd)\s*\(\s*[\"'][^\"'])[^{}]*\}\}|\{[A-Za-z_][\w.]*(?:![rsa])?\}"
    r"|%\([A-Za-z_]\w*\)s|%[sdrv]|%(?-i:[A-Z][A-Z_]*)%|<[A-Za-z][\w .:-]*>"
    r"|os\.environ\[[\"']\w+[\"']\]|os\.(?:environ\.get|getenv)\([\"']\w+[\"']\)|process\.env\.\w+"
    r"|env\.\w+|ENV\[[\"']\w+[\"']\]|env\([\"']\w+[\"']\)|getenv\([\"']\w+[\"']\)"
    r"|(?:self|vars?|args|local|data|secrets|settings|config|module\.params)\.[A-Za-z_][A-Za-z_.]*"
    r"|(?:lookup|query)\([\"'][\w.]+[\"'](?:, ?[\"'][\w./ -]+[\"']\))?"
    r"|none|null|nil|true|false|undefined|str|string|bytes|int|bool|any|optional|required|prompt"
    r"|(?:optional|list|dict|type|union)\[[\w, |]*\]|(?:str|string|bytes)(?: ?\| ?(?:none|null|undefined))?(?: = none)?"
    r"|\*{3,}|\.{3}|\u2026",
    re.I,
)
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{20,4000}={0,2}")
_HEX = re.compile(r"(?<![A-Za-z0-9])(?P<value>[0-9a-fA-F]{32,512})(?![A-Za-z0-9])")
_DIGEST_BEFORE = re.compile(r"(?:sha\d{1,3}[:=-]|\bcommit |@)$", re.I)


def entropy(text: str) -> float:
    """Tell the Shannon entropy of a text in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def is_random(token: str) -> bool:
    """Tell whether a token looks as if chance had made it: upper and lower case, digits, and no letter preferred.

    Short ones can't reach the entropy of long ones, so they are held against what their length allows.
    """
    bare = token.rstrip("=")
    classes = (str.isupper, str.islower, str.isdigit)
    if not all(any(test(char) for char in bare) for test in classes):
        return False
    # Paths are long too; a key with a slash in it has 32 characters at least.
    if "/" in bare and len(bare) < 32:
        return False
    return entropy(bare) >= (0.88 * math.log2(len(bare)) if len(bare) < 32 else 4.3)


def is_secret_file(path: str) -> bool:
    """Tell by its name whether a file holds secrets."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    return any(fnmatch(name, pattern) for pattern in SECRET_FILES)


def _is_harmless(value: str) -> bool:
    """Tell whether a value stands for another, or is a word of code. Only the whole of it can be."""
    if value[0] in "\"'`\\":
        return bool(_HARMLESS.fullmatch(value.strip("\"'`\\")))
    # In a line of code, what follows it stands with it.
    while len(value) >= 4:
        if _HARMLESS.fullmatch(value):
            return True
        if value[-1] not in ",;:)]}>.\"'`":
            return False
        value = value[:-1]
    return True


def redact(text: str) -> tuple[str, int]:
    """Replace what looks like a secret.

    Returns:
        The text without them, and how many there were.
    """
    count = 0

    def gone(kind: str) -> str:
        nonlocal count
        count += 1
        return f"[{kind} removed]"

    def value(match: re.Match[str]) -> str:
        if _HARMLESS.fullmatch(match["value"]):
            return match[0]
        return match["before"] + gone("secret")

    def assigned(match: re.Match[str]) -> str:
        if _is_harmless(match["value"]):
            return match[0]
        return match["before"] + gone("secret") + (match.groupdict().get("after") or "")

    def block(match: re.Match[str]) -> str:
        end = "\n" if match["value"].endswith("\n") else ""
        return f"{match['before']}{match['sign'] or ''}{match['indent']}  {gone('secret')}{end}"

    def token(match: re.Match[str]) -> str:
        return gone("random text") if is_random(match[0]) else match[0]

    def digits(match: re.Match[str]) -> str:
        known = _DIGEST_BEFORE.search(text, max(0, match.start() - 10), match.start())
        mixed = any(c.isdigit() for c in match[0]) and any(c.isalpha() for c in match[0])
        return match[0] if known or not mixed or entropy(match[0]) < 3 else gone("random text")

    text = _KEY_BLOCK.sub(lambda _: gone("private key"), text)
    text = _KNOWN.sub(lambda _: gone("key"), text)
    text = _URL_PASSWORD.sub(value, text)
    text = _HEADER.sub(value, text)
    text = _BLOCK.sub(block, text)
    text = _BELOW.sub(assigned, text)
    text = _LINE.sub(assigned, text)
    text = _ASSIGNMENT.sub(assigned, text)
    text = _OPTION.sub(assigned, text)
    text = _ELEMENT.sub(value, text)
    text = _NETRC.sub(value, text)
    text = _HEX.sub(digits, text)
    return _TOKEN.sub(token, text), count
