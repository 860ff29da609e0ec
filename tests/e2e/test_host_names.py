"""`rdev host`: names that a person gives, on a laptop that has met nobody yet."""

import json


def names(rdev):
    return [row["name"] for row in rdev.json("host", "ls")]


def test_hosts_are_named_chosen_and_forgotten(rdev):
    assert names(rdev) == ["local"]
    added = rdev.run("host", "add", "gpu1", "me@10.0.0.1", "--transport", "paramiko")
    assert added.returncode == 0, added.stderr
    assert rdev.run("host", "use", "gpu1").returncode == 0
    rows = {row["name"]: row for row in rdev.json("host", "ls")}
    assert rows["gpu1"]["usual"]
    assert not rows["local"]["usual"]
    assert (rows["gpu1"]["ssh"], rows["gpu1"]["transport"]) == ("me@10.0.0.1", "paramiko")
    assert rdev.run("host", "ls").stdout.splitlines()[0].startswith("* gpu1 ")
    assert rdev.run("host", "rm", "gpu1").returncode == 0
    assert names(rdev) == ["local"]


def test_a_long_name_leaves_the_columns_in_line(rdev):
    for name in ("a", "b" * 30):
        rdev.run("host", "add", name, "me@10.0.0.1")
    lines = rdev.run("host", "ls").stdout.splitlines()
    assert len({line.index("me@") for line in lines if "me@" in line}) == 1, lines


def test_what_is_not_known_cannot_be_forgotten(rdev):
    done = rdev.run("host", "rm", "gpu7")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unable to forget the host 'gpu7': nothing is known of it")


def test_a_name_that_ssh_would_take_for_an_option_is_refused(rdev):
    for words in (("add", "gpu 1"), ("add", "../x"), ("use", "a;b")):
        done = rdev.run("host", *words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr


def test_a_workspaces_file_cannot_say_where_a_name_leads(rdev):
    rdev.write("rdev.toml", '[hosts.gpu1]\nssh = "evil@example.org"\n')
    done = rdev.run("ps")
    assert done.returncode == 78
    assert "'hosts' is no key" in done.stderr


def test_this_machine_is_up_by_itself(rdev):
    done = rdev.run("up", "local", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["home"] == str(rdev.home / ".rdev")
    assert rdev.run("up").stdout.startswith("local is up: rdev ")
