"""MLflow on the test host, asked by its own client and by strangers."""

import base64
import json

from testinfra.host import Host

URL = "http://127.0.0.1:15500/experiments"
USER = "owner:not-a-secret-of-the-role-test"

CLIENT = """
import mlflow, pathlib
mlflow.set_experiment("role-test")
with mlflow.start_run(run_name="one") as run:
    mlflow.log_params({"engine": "vllm", "concurrency": 4})
    mlflow.log_metrics({"throughput_mean": 12.5, "throughput_ci95_low": 12.1, "throughput_ci95_high": 12.9})
    pathlib.Path("/tmp/finding.csv").write_text("claim_id,mean\\nthroughput,12.5\\n")
    mlflow.log_artifact("/tmp/finding.csv")
client = mlflow.MlflowClient()
again = client.get_run(run.info.run_id)
back = pathlib.Path(client.download_artifacts(run.info.run_id, "finding.csv", "/tmp")).read_text()
print(again.data.params["engine"], again.data.metrics["throughput_mean"], back.split()[1])
"""


def status(host: Host, path: str, *arguments: str) -> int:
    """The status with which MLflow answers."""
    return int(host.check_output(f"curl -s -o /dev/null -m 30 -w '%{{http_code}}' {' '.join(arguments)} {URL}{path}"))


def test_its_own_client_logs_a_run_with_an_artifact(host: Host) -> None:
    with host.sudo():
        image = host.check_output("docker inspect --format '{{.Config.Image}}' role-test-mlflow-1")
        name, password = USER.split(":")
        script = base64.b64encode(CLIENT.encode()).decode()
        done = host.run(
            f"docker run --rm --network host -e MLFLOW_TRACKING_URI={URL} -e MLFLOW_TRACKING_USERNAME={name}"
            f" -e MLFLOW_TRACKING_PASSWORD={password} -e GIT_PYTHON_REFRESH=quiet {image}"
            f" python3 -c \"import base64; exec(base64.b64decode('{script}'))\""
        )
    assert done.rc == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "vllm 12.5 throughput,12.5"


def test_the_artifact_lies_on_disk(host: Host) -> None:
    with host.sudo():
        found = host.check_output("find /srv/mlflow/data/artifacts -name finding.csv -user ubuntu")
    assert found


def test_a_stranger_gets_nothing(host: Host) -> None:
    assert status(host, "/") == 401
    assert status(host, "/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert status(host, "/ajax-api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert status(host, "/api/2.0/mlflow-artifacts/artifacts") == 401
    assert status(host, "/api/2.0/mlflow/experiments/search?max_results=1", "-u owner:password1234") == 401
    user = json.dumps({"username": "stranger", "password": "a-password-of-a-stranger"})
    assert status(host, "/api/2.0/mlflow/users/create", "-H 'Content-Type: application/json'", f"-d '{user}'") == 401
    # The name and password that MLflow once shipped.
    assert status(host, "/", "-u admin:password1234") == 401
    assert status(host, "/health") == 200


def test_only_known_names_are_answered(host: Host) -> None:
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(host, path, f"-u {USER}") == 200
    for name in ("gateway.example", "gateway.example:443", "localhost:15500"):
        assert status(host, path, f"-u {USER}", f"-H 'Host: {name}'") == 200, name
    for name in ("evil.example", "gateway.example.evil.example", "10.1.2.3", "192.168.1.1:15500"):
        assert status(host, path, f"-u {USER}", f"-H 'Host: {name}'") == 403, name


def test_only_pages_of_the_gateway_send_changes(host: Host) -> None:
    def create(name: str, origin: str) -> int:
        body = json.dumps({"name": name})
        return status(
            host,
            "/ajax-api/2.0/mlflow/experiments/create",
            f"-u {USER} -H 'Host: gateway.example' -H 'Origin: {origin}'",
            f"-H 'Content-Type: application/json' -d '{body}'",
        )

    assert create("by-the-gateway", "https://gateway.example") == 200
    assert create("by-a-stranger", "https://evil.example") == 403


def test_the_page_and_its_files_are_below_the_path(host: Host) -> None:
    page = host.check_output(f"curl -s -u {USER} {URL}/")
    script = page.partition('src="')[2].partition('"')[0]
    assert script.endswith(".js")
    assert status(host, f"/{script}", f"-u {USER}") == 200


def test_it_listens_on_loopback_only(host: Host) -> None:
    with host.sudo():
        listeners = host.check_output("ss -Hltn 'sport = :15500'")
    assert [line.split()[3] for line in listeners.splitlines()] == ["127.0.0.1:15500"]


def test_the_container_can_do_little(host: Host) -> None:
    with host.sudo():
        found = json.loads(host.check_output("docker inspect role-test-mlflow-1"))[0]
        passwd = host.check_output("id -u ubuntu")
    assert found["Config"]["User"].split(":")[0] == passwd
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert found["State"]["Health"]["Status"] == "healthy"


def test_no_secret_is_where_others_look(host: Host) -> None:
    with host.sudo():
        inspected = host.check_output("docker inspect role-test-mlflow-1")
        logs = host.run("docker logs role-test-mlflow-1")
        processes = host.check_output("ps -eo args")
        keys = host.file("/srv/mlflow/secrets/mlflow.env")
        assert (keys.user, keys.mode) == ("ubuntu", 0o600)
        assert host.file("/srv/mlflow/secrets").mode == 0o700
        assert host.file("/srv/mlflow/data").mode == 0o700
    for text in (inspected, logs.stdout, logs.stderr, processes, host.file("/srv/mlflow/compose.yml").content_string):
        assert "not-a-secret" not in text
