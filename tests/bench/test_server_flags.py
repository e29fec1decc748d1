from conure.bench.server_flags import command, flags


def test_a_command_is_what_a_shell_takes() -> None:
    options = {"model": "my models/a.nemo", "tcp_port": 0, "slots": 12}
    assert flags(options) == ["--model", "my models/a.nemo", "--tcp-port", "0", "--slots", "12"]
    assert command(options) == "conure serve --model 'my models/a.nemo' --tcp-port 0 --slots 12"
