#!/usr/bin/env python3
"""Models the L2 cache in the backward pass over a grid: the share of steps whose tile of queries has left it.

Blocks take one tile of keys after the other and walk over the tiles of queries that see it, a step each, at about the
same pace. A step reads a tile's queries and gradients of out and adds to its sums; the cache holds the tiles that were
used last. The table has the orders in which tiles of keys can be taken (which axis last) and the walks (from the first
tile of queries or from the last; with the same axis last), for one head at a time and for two.

    python3 bench/cache_model.py --grid 30,48,80 --window 18,24,24 --stride 16,8,8 --keys 2,8,8 --queries 1,8,8
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import OrderedDict


def seen_from(extent: int, window: int, stride: int, x: int) -> tuple[int, int]:
    """The keys that query x sees along an axis, of its dilation group: neighborhood() of templates/vicinal/geometry.cuh."""
    leader = min(x // stride * stride + (stride // 2 if stride > 1 else 0), extent - 1)
    begin = min(max(leader - window // 2, 0), extent - window)
    return begin, begin + window


def tiles_seeing(extent: int, window: int, stride: int, dilation: int, keys: int, queries: int) -> list[range]:
    """Tiles of queries by tile of keys, along an axis; tiles are numbered group by group."""
    whole = -(-extent // dilation)  # tokens of the first groups, and as many tiles as they have for every group
    found = []
    for group in range(dilation):
        tokens = len(range(group, extent, dilation))
        ranges = [seen_from(tokens, window, stride, x) for x in range(tokens)]
        first_tile = group * -(-whole // queries)
        for first in range(0, whole, keys):
            see = [x for x, (begin, end) in enumerate(ranges) if begin < first + keys and end > first]
            found.append(range(first_tile + see[0] // queries, first_tile + see[-1] // queries + 1) if see else range(0))
    return found


def in_order(ranges: list[range], last: int) -> list[tuple[int, ...]]:
    """Places in a box, the axis `last` changing last and of the others the last one first."""
    axes = [last] + [i for i in range(len(ranges)) if i != last]
    back = [axes.index(i) for i in range(len(ranges))]
    return [tuple(place[i] for i in back) for place in itertools.product(*(ranges[i] for i in axes))]


def misses(seen: list[list[range]], last: int, forward: bool, section: int, heads: int, blocks: int, room: int) -> float:
    keys = in_order([range(len(axis)) for axis in seen], last)
    items = ((h + first, key) for first in range(0, heads, section) for key in keys for h in range(section))

    def walk(head: int, key: tuple[int, ...]):
        places = in_order([seen[i][k] for i, k in enumerate(key)], last)
        for place in places if forward else reversed(places):
            yield head, place

    chance = random.Random(1)
    cached: OrderedDict[tuple[int, tuple[int, ...]], None] = OrderedDict()
    walks = {block: walk(*item) for block, item in zip(range(blocks), items)}
    ready = [(block / 1000, block) for block in walks]
    heapq.heapify(ready)
    steps = missed = 0
    while ready:
        now, block = heapq.heappop(ready)
        tile = next(walks[block], None)
        if tile is None:
            item = next(items, None)
            if item is None:
                continue
            walks[block] = walk(*item)
            tile = next(walks[block], None)
            if tile is None:  # keys that nobody sees
                heapq.heappush(ready, (now, block))
                continue
        steps += 1
        if tile in cached:
            cached.move_to_end(tile)
        else:
            missed += 1
            cached[tile] = None
            if len(cached) > room:
                cached.popitem(last=False)
        heapq.heappush(ready, (now + chance.uniform(0.95, 1.05), block))
    return missed / steps


def main() -> None:
    numbers = lambda text: [int(x) for x in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=numbers, required=True, help="tokens along each axis")
    parser.add_argument("--window", type=numbers, required=True)
    parser.add_argument("--stride", type=numbers, help="default: 1")
    parser.add_argument("--dilation", type=numbers, help="default: 1")
    parser.add_argument("--keys", type=numbers, required=True, help="a tile's keys along each axis")
    parser.add_argument("--queries", type=numbers, required=True, help="a tile's queries along each axis")
    parser.add_argument("--heads", type=int, default=4, help="of keys; even")
    parser.add_argument("--blocks", type=int, default=132, help="at work at a time")
    parser.add_argument("--tile-kib", type=float, default=64.5, help="what a step touches")
    parser.add_argument("--cache-mib", type=float, default=36, help="what stays of the L2 cache, both halves holding some twice")
    options = parser.parse_args()
    ones = [1] * len(options.grid)
    axes = zip(options.grid, options.window, options.stride or ones, options.dilation or ones, options.keys, options.queries)
    seen = [tiles_seeing(*axis) for axis in axes]
    room = int(options.cache_mib * 1024 / options.tile_kib)
    print("| axis taken last | walk from | heads at a time | misses |\n| --- | --- | --- | --- |")
    for last, forward, section in itertools.product(range(len(seen)), (True, False), (1, 2)):
        share = misses(seen, last, forward, section, options.heads, options.blocks, room)
        print(f"| {last} | {'the first' if forward else 'the last'} | {section} | {share:.3f} |")


if __name__ == "__main__":
    main()
