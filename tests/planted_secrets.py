"""Secrets planted in lines as commits have them, and lines that only look like it, to hold finders against.

All of them are made here by chance, the same ones each time, so that no file of the project holds one.
``python -m tests.planted_secrets`` prints the table of docs/knowledge-vault.md, with each finder that is installed.
"""

import base64
import importlib.util
import random
import string
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LETTERS = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
WEB = LETTERS + "_-"
EACH = 3


@dataclass(frozen=True)
class Planted:
    """A text, the secret in it, and what kind of secret that is."""

    kind: str
    text: str
    secret: str


def planted() -> list[Planted]:
    """Three of each kind."""
    chance = random.Random(20261127)

    def any_of(characters: str, count: int) -> str:
        return "".join(chance.choice(characters) for _ in range(count))

    def token() -> str:
        part = [base64.urlsafe_b64encode(any_of(LETTERS, size).encode()).decode().rstrip("=") for size in (24, 90)]
        return f"eyJ{part[0]}.eyJ{part[1]}.{any_of(WEB, 43)}"

    def block() -> str:
        rows = "\n".join(any_of(LETTERS + "+/", 64) for _ in range(4))
        return f"-----BEGIN RSA PRIVATE KEY-----\n{rows}\n-----END RSA PRIVATE KEY-----"

    def word() -> str:
        return chance.choice(["Correct", "Horse", "Winter", "Garden"]) + any_of(string.digits, 4) + any_of("!?%&", 2)

    def begins(*signs: str) -> Callable[[], str]:
        # Passwords that begin like what stands for one, with other signs in them.
        return lambda: chance.choice(signs) + any_of(LETTERS, 6) + any_of("-!#+", 2) + any_of(LETTERS, 3)

    def with_signs() -> str:
        return any_of(LETTERS, 5) + any_of(",;)}", 1) + any_of(LETTERS, 5) + any_of("&|]", 1) + any_of(LETTERS, 3)

    # By kind: what makes the secret, and a line that it stands in.
    kinds: dict[str, tuple[Callable[[], str], str]] = {
        "AWS access key": (lambda: "AKIA" + any_of(string.ascii_uppercase + "234567", 16), "aws_access_key_id = {}"),
        "AWS secret key": (lambda: any_of(LETTERS + "+/", 40), 'AWS_SECRET_ACCESS_KEY="{}"'),
        "GitHub token": (lambda: "ghp_" + any_of(LETTERS, 36), "git clone https://{}@github.com/a/b"),
        "GitHub fine-grained token": (lambda: f"github_pat_{any_of(LETTERS, 22)}_{any_of(LETTERS, 59)}", "- uses {}"),
        "GitLab token": (lambda: "glpat-" + any_of(WEB, 20), "PRIVATE-TOKEN: {}"),
        "Slack token": (lambda: f"xoxb-{any_of('123456789', 12)}-{any_of(LETTERS, 24)}", "slack({})"),
        "Slack webhook": (
            lambda: f"{any_of(UPPER, 9)}/B{any_of(UPPER, 10)}/{any_of(LETTERS, 24)}",
            "curl https://hooks.slack.com/services/T{}",
        ),
        "Stripe key": (lambda: "sk_live_" + any_of(LETTERS, 24), "stripe.api_key = '{}'"),
        "OpenAI key": (lambda: "sk-proj-" + any_of(WEB, 48), "OpenAI(api_key='{}')"),
        "Anthropic key": (lambda: f"sk-ant-api03-{any_of(WEB, 93)}AA", "export ANTHROPIC_API_KEY={}"),
        "Hugging Face token": (lambda: "hf_" + any_of(string.ascii_letters, 34), "login(token='{}')"),
        "NVIDIA key": (lambda: "nvapi-" + any_of(WEB, 64), "docker login -u oauthtoken -p {} nvcr.io"),
        "npm token": (lambda: "npm_" + any_of(LETTERS, 36), "//registry.npmjs.org/:_authToken={}"),
        "PyPI token": (lambda: "pypi-AgEIcHlwaS5vcmc" + any_of(WEB, 100), "twine upload -p {}"),
        "Google API key": (lambda: "AIza" + any_of(WEB, 35), "https://maps.example/js?key={}"),
        "SendGrid key": (lambda: f"SG.{any_of(WEB, 22)}.{any_of(WEB, 43)}", "mail.send('{}')"),
        "Telegram bot token": (lambda: f"{any_of('123456789', 10)}:AA{any_of(WEB, 33)}", "telegram.Bot('{}')"),
        "JSON web token": (token, "cookie: session={}"),
        "private key": (block, "+{}"),
        "password in an address": (lambda: any_of(LETTERS, 14), "postgresql://app:{}@db.lan/app"),
        "password in YAML": (word, "  db_password: {}"),
        "password in Python": (word, "PASSWORD = '{}'"),
        "password in JSON": (word, '{{"user": "a", "password": "{}"}}'),
        "password on a command line": (word, "mysql --user=root --password={} app"),
        "password in prose": (word, "The password for the test account is {} as always"),
        "password in .netrc": (word, "machine git.lan login me password {}"),
        "bearer header": (lambda: any_of(LETTERS, 40), "-H 'Authorization: Bearer {}'"),
        "basic header": (
            lambda: base64.b64encode(f"me:{any_of(LETTERS, 16)}".encode()).decode(),
            "Authorization: Basic {}",
        ),
        "hexadecimal key": (lambda: any_of(HEX, 64), "key = bytes.fromhex('{}')"),
        "random token alone": (lambda: any_of(LETTERS, 40), "x('{}')"),
        "Azure storage key": (
            lambda: any_of(LETTERS + "+/", 86) + "==",
            "AccountName=a;AccountKey={};EndpointSuffix=b",
        ),
        "Kubernetes secret": (lambda: base64.b64encode(any_of(LETTERS, 30).encode()).decode(), "  tls.token: {}"),
        "password that begins with a sign": (begins(*"$%<{[("), 'db_password: "{}"'),
        "password that begins like code": (begins("env-", "true-", "string-", "lookup-", "self-"), "DB_PASSWORD={}"),
        "password with signs in it": (with_signs, "DB_PASSWORD={}"),
        "password with blanks": (lambda: f"{word()} {any_of(LETTERS, 6)} {word()}", "password: {}"),
        "password with a sign in an address": (begins(*"$%<{[("), "postgresql://app:{}@db.lan/app"),
        "password in a block of YAML": (word, "+db_password: |\n+  {}\n+db_user: app"),
        "password as a default": (word, "password: ${{DB_PASSWORD:-{}}}"),
        "password behind a type": (word, "def connect(user: str, password: str = '{}') -> None:"),
        "password of an index": (word, "config['password'] = '{}'"),
        "password in XML": (word, "<password>{}</password>"),
        "password after an option": (word, "mysql --user root --password {} app"),
    }
    made = []
    for kind, (make, line) in kinds.items():
        for _ in range(EACH):
            secret = make()
            made.append(Planted(kind, line.format(secret), secret))
    return made


def harmless() -> list[str]:
    """Two hundred lines as commits have them, twenty of each kind, without a secret."""
    chance = random.Random(7)

    def digest(count: int) -> str:
        return "".join(chance.choice(HEX) for _ in range(count))

    words = ["gateway", "model", "release", "engine", "driver", "vault", "note", "metric", "inventory", "certificate"]

    def name() -> str:
        return "_".join(chance.sample(words, 3))

    def camel() -> str:
        return "".join(word.title() for word in chance.sample(words, 4))

    templates: list[Callable[[], str]] = [
        lambda: f"This reverts commit {digest(40)}.",
        lambda: f"  image: registry.lan/{name()}@sha256:{digest(64)}",
        lambda: f"id: {uuid.UUID(int=chance.getrandbits(128), version=4)}",
        lambda: f"from {name()}.{name()} import {camel()}, {camel()}",
        lambda: f'{name()}_password: "{{{{ {name()} }}}}"',
        lambda: f"token = os.environ['{name().upper()}']",
        lambda: f"def {name()}(password: str, api_key: str | None = None) -> {camel()}:",
        lambda: f"See /usr/share/{name()}/{camel()}/{name()}-{chance.randint(1, 99)}.{chance.randint(0, 99)}.tar.gz",
        lambda: (
            f"The {chance.choice(words)} asks for a token, and the secret of a good {chance.choice(words)} is rest."
        ),
        lambda: f"https://docs.example/{name()}/{chance.randint(1, 9)}.x/{camel()}.html#{name()}",
    ]
    return [template() for template in templates for _ in range(20)]


# What a finder says: the secrets that it sees in a text.
Finder = Callable[[str], list[str]]


def ours() -> Finder:
    """The vault's own, which removes: what is gone was found."""
    sys.path.insert(0, str(ROOT / "roles" / "knowledge_vault" / "files"))
    redact = importlib.import_module("knowledge_vault.redaction").redact

    def found(text: str) -> list[str]:
        clean, count = redact(text)
        return [text if clean != text else ""] if count else []

    found.clean = lambda text: redact(text)[0]  # type: ignore[attr-defined]
    return found


def detect_secrets() -> Finder:
    """Yelp's detect-secrets with all its plug-ins and filters."""
    scan = importlib.import_module("detect_secrets.core.scan")
    settings = importlib.import_module("detect_secrets.settings")

    def found(text: str) -> list[str]:
        # As a file: a line by itself is not put through its filters.
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file, settings.default_settings():
            file.write(text + "\n")
            file.flush()
            return [one.secret_value or "" for one in scan.scan_file(file.name)]

    return found


def betterleaks() -> Finder:
    """Betterleaks, the successor of Gitleaks, by its binding."""
    scan = importlib.import_module("betterleaks").scan_string
    return lambda text: [one.secret for one in scan(text)]


def sees(finder: Finder, one: Planted) -> bool:
    """Whether a finder finds a secret, or enough of it that nobody could use the rest."""
    clean = getattr(finder, "clean", None)
    if clean:
        left = clean(one.text)
        return not any(one.secret[at : at + 5] in left for at in range(max(1, len(one.secret) - 4)))
    return any(part and (part in one.secret or one.secret in part) for part in finder(one.text))


def results(finder: Finder) -> dict[str, int]:
    """By kind how many were found, and under an empty name how many harmless lines were taken for secrets."""
    found: dict[str, int] = {}
    for one in planted():
        found[one.kind] = found.get(one.kind, 0) + sees(finder, one)
    found[""] = sum(bool(finder(text)) for text in harmless())
    return found


def main() -> None:
    """Print the table."""
    finders = {"ours": ours}
    for name, make in (("detect_secrets", detect_secrets), ("betterleaks", betterleaks)):
        if importlib.util.find_spec(name):
            finders[name] = make
    columns = {name: results(make()) for name, make in finders.items()}
    kinds = list(next(iter(columns.values())))
    total = len(planted())
    print(f"| kind | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for kind in kinds[:-1]:
        print(f"| {kind} | {' | '.join(f'{column[kind]}/{EACH}' for column in columns.values())} |")
    sums = [sum(count for kind, count in column.items() if kind) for column in columns.values()]
    print(f"| **all secrets** | {' | '.join(f'**{count}/{total}**' for count in sums)} |")
    wrong = [f"{column['']}/{len(harmless())}" for column in columns.values()]
    print(f"| **harmless lines taken for one** | {' | '.join(wrong)} |")


if __name__ == "__main__":
    main()
