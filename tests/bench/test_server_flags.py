from conure.bench.server_flags import command, flags


def test_a_command_is_what_a_shell_takes() -> None:
    choice = {"model": "my models/a.nemo", "tcp_port": 0, "slots": 12}
    assert flags(choice) == ["--model", "my models/a.nemo", "--tcp-port", "0", "--slots", "12"]
    assert command(choice) == "conure serve --model 'my models/a.nemo' --tcp-port 0 --slots 12"
