#!/usr/bin/python3
"""Writes the seed corpora of the fuzzers to test/data/fuzz: all but that of the patterns.

Starts its own redis-server in a temporary directory, writes values of every type and encoding, and keeps
  dump      the payloads of DUMP without their last ten bytes (version and checksum),
  listpack  the listpacks inside uncompressed payloads,
  lzf       compressed strings: four bytes of size (little endian), then the compressed bytes,
  intset, stream  those inside payloads,
  rdb_file  what SAVE writes of some of the values, with and without a checksum.
Encodings that this server does not write are built by hand: ziplist, zipmap, expiring_hash; object has a type and a
value of each, changes has a byte and a replication stream. Needs redis-server 7.0 and python3-redis. Each file is
named by a hash of its contents.
"""

import hashlib
import pathlib
import shutil
import struct
import subprocess
import tempfile
import time

import redis

TARGET = pathlib.Path(__file__).resolve().parent.parent / "data" / "fuzz"
KINDS = ["dump", "listpack", "lzf", "intset", "stream", "rdb_file", "ziplist", "zipmap", "expiring_hash", "object", "changes"]
TRAILER = 10  # RDB version and checksum
BLOB_TYPES = {16, 17, 20}  # hash, zset, set in one listpack


def values(r):
    """Writes one value after another under "k", yielding after each."""
    integers = [0, -1, 127, 128, -129, 4095, -4096, 32768, -8388609, 2147483648, -(2**63), 2**63 - 1]
    text = "".join(f"line {i} of a text that repeats itself\n" for i in range(12))
    for value in [*integers, "", "abc", "007", bytes(range(256)), text, "z" * 300, b"\0" * 40]:
        r.set("k", value)
        yield
    lists = [["a", "", 5, text], list(range(120)), ["x" * 70, "y" * 5000]]
    for elements in lists:
        r.delete("k")
        r.rpush("k", *elements)
        yield
    r.execute_command("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "100b")
    r.delete("k")
    r.rpush("k", text, "small", 7, "v" * 200)
    yield
    for members in [integers[:5], [1, 70000], [1, 2**40], ["a", "", 5, "b" * 80], []]:
        r.delete("k")
        if members:
            r.sadd("k", *members)
            yield
    for mapping in [{"f": "v", "": "", "12": "-5"}, {"f": text, "g": "1", "h": ""}, {f"f{i}": i for i in range(60)}]:
        r.delete("k")
        r.hset("k", mapping=mapping)
        yield
    scores = {"a": 1, "b": 1.5, "c": float("inf"), "d": float("-inf"), "e": 5e-324, "f": -0.0, "12": 1e20}
    for mapping in [scores, {**scores, "g" * 70: 0}]:
        r.delete("k")
        r.zadd("k", mapping)
        yield
    r.delete("k")
    r.xadd("k", {"a": 1, "b": ""}, id="1-5")
    yield
    r.xadd("k", {"a": 2, "b": "x"}, id="2-0")
    r.xadd("k", {"c": text}, id="3-0")
    r.xdel("k", "2-0")
    yield
    r.xgroup_create("k", "g", id="0")
    r.xgroup_createconsumer("k", "g", "idle")
    r.xreadgroup("g", "c1", {"k": ">"}, count=1)
    r.xreadgroup("g", "c2", {"k": ">"}, count=1)
    yield
    for i in range(4, 30):
        r.xadd("k", {"n": i}, id=f"{i}-1")
    yield


def read_length(data, at):
    kind = data[at] >> 6
    if kind == 0:
        return data[at] & 0x3F, at + 1
    if kind == 1:
        return (data[at] & 0x3F) << 8 | data[at + 1], at + 2
    return struct.unpack(">I", data[at + 1 : at + 5])[0], at + 5


def listpacks(body):
    """The listpacks of an uncompressed payload."""
    if body[0] in BLOB_TYPES:
        length, at = read_length(body, 1)
        yield body[at : at + length]
    elif body[0] == 18:  # list: number of nodes, then container and string of each
        count, at = read_length(body, 1)
        for _ in range(count):
            container = body[at]
            length, at = read_length(body, at + 1)
            if container == 2:
                yield body[at : at + length]
            at += length
    elif body[0] == 19:  # stream: number of listpacks, then id (16 bytes) and string of each
        count, at = read_length(body, 1)
        for _ in range(count):
            length, at = read_length(body, at + 17)
            yield body[at : at + length]
            at += length


def compressed_strings(body):
    if body[0] == 0 and body[1] == 0xC3:
        length, at = read_length(body, 2)
        size, at = read_length(body, at)
        yield struct.pack("<I", size) + body[at : at + length]


def length(n):
    return bytes([n]) if n < 64 else struct.pack(">H", 0x4000 | n)


def string(data):
    return length(len(data)) + data


def ziplist(elements):
    """Elements are bytes: what follows the size of the element before."""
    body, before, tail = b"", 0, 10
    for element in elements:
        tail = 10 + len(body)
        element = (bytes([before]) if before < 254 else b"\xfe" + struct.pack("<I", before)) + element
        before = len(element)
        body += element
    return struct.pack("<IIH", 10 + len(body) + 1, tail, len(elements)) + body + b"\xff"


def listpack(elements):
    body = b"".join(element + bytes([len(element)]) for element in elements)
    return struct.pack("<IH", len(body) + 7, len(elements)) + body + b"\xff"


def hand_made():
    """Yields kind and bytes."""
    integers = [b"\xf1", b"\xfd", b"\xfe\x80", b"\xc0\0\x80", b"\xf0\0\0\x80", b"\xd0\0\0\0\x80", b"\xe0" + b"\xff" * 7 + b"\x7f"]
    long = [b"\x41\x2c" + b"x" * 300, b"\x80\0\0\x01\x2c" + b"y" * 300]
    ziplists = [ziplist([]), ziplist([b"\x01a", b"\x011"]), ziplist(integers), ziplist([*long, b"\x03end"])]
    for data in ziplists:
        yield "ziplist", data
    zipmaps = [b"\0\xff", b"\x02\x01a\x01\0v\x01b\x03\x02abc??\xff", b"\xfe\xfe\x2c\x01\0\0" + b"k" * 300 + b"\0\0\xff"]
    for data in zipmaps:
        yield "zipmap", data
    now = struct.pack("<q", 1700000000000)
    pairs = [(b"f", b"v", 0), (b"g", b"w", 9)]
    triples = length(2) + b"".join(length(expiry) + string(f) + string(v) for f, v, expiry in pairs)
    in_listpack = string(listpack([b"\x81f", b"\x81v", b"\x00", b"\x81g", b"\x05", b"\xf4" + now]))
    valkey = length(2) + b"".join(string(f) + string(v) + struct.pack("<q", expiry or -1) for f, v, expiry in pairs)
    hashes = {22: triples, 24: now + triples, 23: in_listpack, 25: now + in_listpack}
    for data in [*hashes.values(), valkey]:
        yield "expiring_hash", data
    objects = {3: length(2) + b"\x01a\x031.5\x01b\xfe", 7: b"\x81" + b"\x01" * 8 + b"\x01\x07\x05\x01x\x03abcd\0",
               9: string(zipmaps[1]), 10: string(ziplists[2]), 12: string(ziplists[1]), 13: string(ziplists[1]),
               14: length(2) + string(ziplists[1]) + string(ziplists[2]), **hashes}  # fmt: skip
    for number, data in [*objects.items(), (22, valkey)]:
        yield "object", bytes([number]) + data
    for data in streams():
        yield "changes", data


def streams():
    """Replication streams: commands of every kind, one at a time and all in a row."""
    lines = """SET k v PXAT 1999999999999|set k v KEEPTTL|SETEX k 5 v|DEL a b|RENAME a b|MOVE a 3|COPY a b DB 2 REPLACE
    MULTI|SELECT 5|INCR n|EXEC|FLUSHDB|FLUSHALL ASYNC|SWAPDB 0 1|MSET a 1 b 2|SORT a BY x LIMIT 0 5 STORE b
    GEORADIUS k 1 2 3 km STORE d|LMPOP 2 a b LEFT|MSETEX 2 a 1 b 2|MIGRATE h 1 x 0 9 KEYS a b|EVAL s 1 k|JSON.SET k $ 1
    REPLCONF GETACK *|ping|XGROUP CREATE k g 0|RESTORE k 77 payload ABSTTL FREQ 5|BLPOP a b 0"""
    commands = [line.split() for line in lines.replace("\n", "|").split("|")]
    encoded = ["".join([f"*{len(c)}\r\n", *(f"${len(a)}\r\n{a}\r\n" for a in c)]).encode() for c in commands]
    for number, data in enumerate([*encoded, b"".join(encoded), b"\n\r\n" + encoded[0]]):
        yield bytes([number]) + data


def keep(kind, data):
    (TARGET / kind / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


def main():
    for kind in KINDS:
        shutil.rmtree(TARGET / kind, ignore_errors=True)
        (TARGET / kind).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        socket = directory + "/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", directory, "--save", "",
             "--enable-debug-command", "yes"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not pathlib.Path(socket).exists():
                time.sleep(0.01)
            r = redis.Redis(unix_socket_path=socket)
            for compression in ("yes", "no"):
                r.config_set("rdbcompression", compression)
                r.execute_command("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "1gb")
                for _ in values(r):
                    body = r.dump("k")[:-TRAILER]
                    keep("dump", body)
                    if compression == "no":
                        for data in listpacks(body):
                            keep("listpack", data)
                        if body[0] == 11:
                            keep("intset", body[read_length(body, 1)[1] :])
                        if body[0] == 19:
                            keep("stream", body[1:])
                        keep("object", body)
                    for string in compressed_strings(body):
                        keep("lzf", string)
            r.flushall()
            for number, _ in enumerate(values(r)):
                if number > 30 and len(r.dump("k")) < 500:
                    r.rename("k", f"k{number}")
            r.set("expires", 1, pxat=4102444800000)
            r.save()
            data = pathlib.Path(directory, "dump.rdb").read_bytes()
            keep("rdb_file", data)
            keep("rdb_file", data[:-8] + b"\0" * 8)  # not computed: every change gets past it
            for kind, data in hand_made():
                keep(kind, data)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
