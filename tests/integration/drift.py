"""What can happen to a deployed platform: each kind of damage, and how to see that it is there and gone again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

GPU, DOOR, EDGE = "schlimers-server", "xps15", "jetson"
STACK = "/home/ubuntu/ai-idp/inference"
KNOWLEDGE = "/home/ubuntu/ai-idp"
UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class Drift:
    """One kind of damage.

    Attributes:
        name: what was done, to what.
        host: where.
        role: who repairs it, as it stands before the colon of a task's name.
        damage: a shell command as root.
        probe: a shell command whose output is another while the damage is there, and the same as before afterwards.
        also: hosts and roles that the repair is something to besides.
    """

    name: str
    host: str
    role: str
    damage: str
    probe: str
    also: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name


def apart(one: Drift, other: Drift) -> bool:
    """Whether what one damage and its repair touch has nothing to do with the other's."""
    follow_each_other = (one.host, one.role) in other.also or (other.host, other.role) in one.also
    return (one.host, one.probe) != (other.host, other.probe) and not follow_each_other


def _path(path: str) -> str:
    """Type, owner, mode, target and text of a path, whatever it is."""
    word = shlex.quote(path)
    return f"stat -c '%F %U:%G %a %N' {word} 2>&1; sha256sum {word} 2>/dev/null"


def _unit(unit: str) -> str:
    """What a unit does, now and at the next boot. A moment's `activating` is as good as `active`."""
    return f"systemctl is-active {unit} | sed s/activating/active/; systemctl is-enabled {unit}; systemctl cat {unit}"


def edited(host: str, role: str, path: str) -> Drift:
    return Drift(f"{path} edited", host, role, f"echo '# by hand' >> {path}", _path(path))


def deleted(host: str, role: str, path: str) -> Drift:
    return Drift(f"{path} deleted", host, role, f"rm {path}", _path(path))


def other_mode(host: str, role: str, path: str, mode: str = "0666") -> Drift:
    return Drift(f"{path} with mode {mode}", host, role, f"chmod {mode} {path}", f"stat -c '%F %U:%G %a' {path}")


def other_owner(host: str, role: str, path: str) -> Drift:
    return Drift(f"{path} with another owner", host, role, f"chown nobody {path}", _path(path))


def replaced_by_link(host: str, role: str, path: str) -> Drift:
    return Drift(f"{path} replaced by a link", host, role, f"mv {path} {path}.kept && ln -s {path}.kept {path}",
                 _path(path))  # fmt: skip


def stopped(host: str, role: str, unit: str) -> Drift:
    return Drift(f"{unit} stopped", host, role, f"systemctl stop {unit}", _unit(unit))


def disabled(host: str, role: str, unit: str) -> Drift:
    return Drift(f"{unit} disabled", host, role, f"systemctl disable {unit}", _unit(unit))


def masked(host: str, role: str, unit: str) -> Drift:
    """A unit whose file lies where masks lie: the mask takes its place."""
    damage = f"systemctl stop {unit}; ln --symbolic --force /dev/null {UNITS}/{unit}; systemctl daemon-reload"
    return Drift(f"{unit} masked", host, role, damage, _unit(unit))


def drop_in(host: str, role: str, unit: str, text: str = "[Service]\\nEnvironment=BY_HAND=1") -> Drift:
    """A drop-in of somebody's, in force. It is kept beside as by-hand.conf.aside, which systemd does not read."""
    folder = f"{UNITS}/{unit}.d"
    damage = f"rm -f {folder}/by-hand.conf.aside*; mkdir -p {folder} && printf '{text}\\n' > {folder}/by-hand.conf"
    # It may not start again where another damage took its configuration.
    damage += f" && systemctl daemon-reload && {{ systemctl restart {unit} || true; }}"
    return Drift(f"a drop-in added to {unit}", host, role, damage, _unit(unit))


def container(name: str, damage: str, what: str) -> Drift:
    # The watch, which brings containers back by itself, would now and then be quicker than the check.
    rest = "systemctl stop ai-idp-inference-watch.timer ai-idp-inference-watch.service; "
    return _container(GPU, "inference_stack", "ai-idp-inference", name, damage, what, rest)


def _container(host: str, role: str, project: str, name: str, damage: str, what: str, first: str = "") -> Drift:
    shown = f"docker ps --all --filter name={project} --format '{{{{.Names}}}} {{{{.State}}}} {{{{.Image}}}}' | sort"
    return Drift(f"container {name} {what}", host, role, f"{first}docker {damage} {project}-{name}-1", shown)


FIREWALL = "nft --stateless list table inet ai_idp 2>&1"

DRIFTS: tuple[Drift, ...] = (
    # Every host.
    Drift(
        "a firewall rule taken out of the kernel",
        EDGE,
        "host_baseline",
        "nft flush chain inet ai_idp incoming",
        FIREWALL,
    ),
    Drift(
        "the firewall's table taken out of the kernel", GPU, "host_baseline", "nft delete table inet ai_idp", FIREWALL
    ),
    edited(DOOR, "host_baseline", "/etc/nftables.d/ai-idp.nft"),
    disabled(DOOR, "host_baseline", "ai-idp-firewall.service"),
    deleted(EDGE, "host_baseline", f"{UNITS}/ai-idp-firewall.service"),
    other_owner(EDGE, "host_baseline", "/home/ubuntu/ai-idp"),
    Drift(
        "the package curl removed",
        GPU,
        "host_baseline",
        "DEBIAN_FRONTEND=noninteractive apt-get remove --yes curl",
        "dpkg-query --show --showformat='${db:Status-Status}' curl 2>&1",
    ),
    stopped(GPU, "monitoring_daemon", "prometheus-node-exporter.service"),
    edited(EDGE, "monitoring_daemon", f"{UNITS}/prometheus-node-exporter.service"),
    other_mode(EDGE, "monitoring_daemon", "/var/lib/node_exporter/textfile", "0777"),
    drop_in(GPU, "monitoring_daemon", "prometheus-node-exporter.service"),
    # Docker and the inference stack.
    edited(GPU, "docker_engine", "/etc/docker/daemon.json"),
    disabled(GPU, "docker_engine", "docker.service"),
    other_mode(GPU, "docker_engine", "/etc/docker/daemon.json"),
    edited(GPU, "inference_stack", f"{STACK}/current/compose.yml"),
    other_mode(GPU, "inference_stack", f"{STACK}/secrets/vllm.key-*", "0644"),
    deleted(GPU, "inference_stack", f"{STACK}/current/llama_cpp.key"),
    other_mode(GPU, "inference_stack", f"{STACK}/secrets", "0755"),
    edited(GPU, "inference_stack", f"{STACK}/current/dcgm_counters.csv"),
    edited(GPU, "inference_stack", f"{STACK}/watch.sh"),
    deleted(GPU, "inference_stack", f"{UNITS}/ai-idp-inference-watch.timer"),
    stopped(GPU, "inference_stack", "ai-idp-inference-watch.timer"),
    disabled(GPU, "inference_stack", "ai-idp-inference-watch.timer"),
    container("llama-cpp", "stop", "stopped"),
    container("triton", "rm --force", "removed"),
    container("dcgm-exporter", "kill", "killed"),
    other_mode(GPU, "model_store", "/home/ubuntu/ai-idp/models", "0777"),
    other_owner(GPU, "model_store", "/home/ubuntu/ai-idp/models/tiny-llama"),
    # What is measured of a model must not be measured of its damage.
    edited(GPU, "model_store", "/home/ubuntu/ai-idp/models/tiny-llama/model.safetensors"),
    deleted(GPU, "model_store", "/home/ubuntu/ai-idp/models/tiny-llama-gguf/tiny-llama-f16.gguf"),
    # The gates.
    edited(GPU, "engine_gate", "/etc/ai-idp/gate/current/nginx.conf"),
    stopped(GPU, "engine_gate", "ai-idp-gate.service"),
    drop_in(GPU, "engine_gate", "ai-idp-gate.service"),
    disabled(EDGE, "engine_gate", "ai-idp-gate.service"),
    deleted(EDGE, "engine_gate", f"{UNITS}/ai-idp-gate.service"),
    other_mode(GPU, "tls_certificates", "/etc/ai-idp/tls/server.key", "0644"),
    # The gateway.
    # Made anew by the same key, which is what clients trust.
    Drift(
        "/etc/ai-idp/tls/ca.crt deleted",
        DOOR,
        "tls_certificates",
        "rm /etc/ai-idp/tls/ca.crt",
        "cd /etc/ai-idp/tls; stat -c '%U:%G %a' ca.crt 2>&1; openssl x509 -in ca.crt -noout -subject -pubkey 2>&1",
        # Whoever needs it first makes it, and all who check by it take it over.
        ((GPU, "tls_certificates"), (EDGE, "tls_certificates"), (DOOR, "nginx_gateway"), (DOOR, "n8n")),
    ),
    other_mode(DOOR, "tls_certificates", "/etc/ai-idp/tls/server.key", "0644"),
    other_owner(DOOR, "tls_certificates", "/etc/ai-idp/tls/server.crt"),
    edited(DOOR, "nginx_gateway", "/etc/ai-idp/gateway/current/nginx.conf"),
    deleted(DOOR, "nginx_gateway", "/etc/ai-idp/gateway/current"),
    deleted(DOOR, "nginx_gateway", f"{UNITS}/nginx.service.d/ai-idp.conf"),
    drop_in(DOOR, "nginx_gateway", "nginx.service"),
    other_mode(DOOR, "nginx_gateway", "/var/log/nginx/gateway.access.log", "0644"),
    stopped(DOOR, "nginx_gateway", "nginx.service"),
    disabled(DOOR, "nginx_gateway", "nginx.service"),
    stopped(DOOR, "nginx_gateway", "ai-idp-gateway-metrics.service"),
    edited(DOOR, "nginx_gateway", "/usr/local/lib/ai-idp/gateway_metrics.py"),
    edited(DOOR, "monitoring_daemon", f"{UNITS}/prometheus-nginx-exporter.service"),
    masked(DOOR, "monitoring_daemon", "prometheus-nginx-exporter.service"),
    deleted(DOOR, "monitoring_daemon", "/etc/prometheus/blackbox.yml"),
    disabled(DOOR, "monitoring_daemon", "prometheus-blackbox-exporter.service"),
    edited(DOOR, "monitoring_daemon", "/etc/prometheus/alertmanager.yml"),
    stopped(DOOR, "monitoring_daemon", "prometheus-alertmanager.service"),
    edited(DOOR, "monitoring_daemon", "/etc/prometheus/prometheus.yml"),
    deleted(DOOR, "monitoring_daemon", "/etc/prometheus/rules/platform.yml"),
    replaced_by_link(DOOR, "monitoring_daemon", "/etc/prometheus/rules/inference.yml"),
    Drift(
        "a rule file of somebody else",
        DOOR,
        "monitoring_daemon",
        "echo 'groups: []' > /etc/prometheus/rules/other.yml",
        "ls /etc/prometheus/rules",
    ),
    other_mode(DOOR, "monitoring_daemon", "/etc/prometheus/credentials", "0755"),
    stopped(DOOR, "monitoring_daemon", "prometheus.service"),
    edited(DOOR, "status_page", "/etc/ai-idp/status_page.json"),
    deleted(DOOR, "status_page", "/usr/local/lib/ai-idp/status_page.py"),
    stopped(DOOR, "status_page", "ai-idp-status-page.timer"),
    drop_in(DOOR, "status_page", "ai-idp-status-page.timer", "[Timer]\\nOnUnitActiveSec=1h"),
    disabled(DOOR, "status_page", "ai-idp-status-page.timer"),
    # Runs and notes.
    edited(DOOR, "mlflow", f"{KNOWLEDGE}/mlflow/compose.yml"),
    other_mode(DOOR, "mlflow", f"{KNOWLEDGE}/mlflow/secrets/mlflow.env", "0644"),
    _container(DOOR, "mlflow", "ai-idp-mlflow", "mlflow", "rm --force", "removed"),
    edited(DOOR, "n8n", f"{KNOWLEDGE}/n8n/compose.yml"),
    other_mode(DOOR, "n8n", f"{KNOWLEDGE}/n8n/secrets", "0755"),
    _container(DOOR, "n8n", "ai-idp-n8n", "n8n", "stop", "stopped"),
    edited(DOOR, "knowledge_vault", "/etc/ai-idp/knowledge_vault.json"),
    other_mode(DOOR, "knowledge_vault", "/etc/ai-idp/knowledge_vault.env", "0644"),
    edited(DOOR, "knowledge_vault", "/usr/local/lib/ai-idp/knowledge_vault/service.py"),
    stopped(DOOR, "knowledge_vault", "ai-idp-vault.service"),
    drop_in(DOOR, "knowledge_vault", "ai-idp-vault.service"),
    disabled(DOOR, "knowledge_vault", "ai-idp-vault-events.service"),
    # The edge.
    drop_in(EDGE, "edge_inference", "edge-rpc.service"),
    edited(EDGE, "edge_inference", f"{UNITS}/edge-inference.service"),
    stopped(EDGE, "edge_inference", "edge-inference.service"),
    disabled(EDGE, "edge_inference", "edge-rpc.service"),
    masked(EDGE, "edge_inference", "edge-inference.service"),
    other_mode(EDGE, "model_store", "/home/ubuntu/ai-idp/models", "0700"),
    deleted(EDGE, "llama_cpp", "/opt/llama.cpp/current"),
)
