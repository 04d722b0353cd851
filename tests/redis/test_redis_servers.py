"""The servers that tests start: killed, paused and restarted as a test asks."""

import pytest
import redis


def test_a_server_is_killed_and_restarted_on_its_port(redis_servers):
    server = redis_servers.start()
    server.call("SET", "a", "1")
    server.kill()
    with pytest.raises(redis.ConnectionError):
        server.call("PING")
    server.start()
    assert server.call("GET", "a") is None


def test_a_paused_server_does_not_answer(redis_servers):
    server = redis_servers.start(unix=True)
    with (
        server.paused(),
        server.client(socket_timeout=0.05) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()
    assert server.call("PING")
    assert server.path.is_socket()


def test_a_cluster_has_all_slots(redis_cluster):
    ports = {server.port for server in redis_cluster}
    slots = redis_cluster[0].call("CLUSTER", "SLOTS")
    assert len(ports) == len(slots) == 3


def test_every_kind_of_server_answers(every_redis):
    assert every_redis.call("SET", "a", "1")
