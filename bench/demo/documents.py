#!/usr/bin/env python3
"""Writes the documents that the demo works on, the same ones each time.

    documents.py DIRECTORY REQUESTS PASSES

DIRECTORY/requests.json gets REQUESTS documents of orders, one a line, and DIRECTORY/orders.xml all
orders in one document, several times over. DIRECTORY/expected gets the line that bench/demo must print for PASSES passes,
worked out here.
"""

import json
import os
import random
import sys
from xml.sax.saxutils import escape, quoteattr

# random() alone gives the same numbers in every version of Python.
generator = random.Random(20231)
WORDS = (
    "river stone amber north ship green lamp order quiet maple salt wheel caf\u00e9 na\u00efve \u6771\u4eac "
    "\U0001f6a2 \"quoted\" back\\slash tab\tbed"
).split(" ")
XML_COPIES = 4


def number(below):
    return int(generator.random() * below)


def words(most):
    return " ".join(WORDS[number(len(WORDS))] for _ in range(number(most)))


def order(identity):
    return {
        "id": identity,
        "customer": f"customer {number(1500)}",
        "address": {"street": words(5), "city": words(3), "zip": f"{number(100000):05}"},
        "note": words(20) if number(3) else None,
        "lines": [
            {
                "sku": f"{number(1 << 32):08x}",
                "name": words(4),
                "quantity": 1 + number(9),
                "cents": number(20000),
                "weight": number(10000) / 1000,
                "in_stock": number(4) > 0,
                "tags": [WORDS[number(12)] for _ in range(number(4))],
            }
            for _ in range(1 + number(6))
        ],
    }


def strings(tree):
    if isinstance(tree, str):
        return len(tree.encode())
    if isinstance(tree, dict):
        return sum(map(strings, tree.values()))
    return sum(map(strings, tree)) if isinstance(tree, list) else 0


def xml(order):
    address = " ".join(f"{name}={quoteattr(text)}" for name, text in order["address"].items())
    yield f'<order id="{order["id"]}" customer={quoteattr(order["customer"])}><address {address}/>'
    if order["note"] is not None:
        yield f'<note>{escape(order["note"])}</note>'
    for line in order["lines"]:
        yield f'<line sku="{line["sku"]}" quantity="{line["quantity"]}"><name>{escape(line["name"])}</name>'
        yield f'<price>{line["cents"] / 100:.2f}</price><weight>{line["weight"]:.3f}</weight>'
        yield "".join(f"<tag>{tag}</tag>" for tag in line["tags"]) + "</line>"
    yield "</order>\n"


def main():
    directory, requests, passes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    documents = []
    for n in range(requests):
        orders = [order(n * 100 + i) for i in range(1 + number(number(60) + 1))]
        documents.append({"request": n, "kind": "orders", "orders": orders})
    everything = [order for document in documents for order in document["orders"]]

    with open(os.path.join(directory, "requests.json"), "w", encoding="ascii") as file:
        for document in documents:
            file.write(json.dumps(document) + "\n")
    with open(os.path.join(directory, "orders.xml"), "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<orders>\n')
        for one in everything * XML_COPIES:
            file.writelines(xml(one))
        file.write("</orders>\n")

    cents = sum(
        line["quantity"] * line["cents"] for one in everything for line in one["lines"] if line["in_stock"]
    )
    customers = len({one["customer"] for one in everything})
    text = sum(map(strings, documents))
    with open(os.path.join(directory, "expected"), "w", encoding="ascii") as file:
        file.write(
            f"requests {requests * passes} orders {len(everything) * passes} cents {cents * passes} "
            f"text {text * passes} customers {customers}\n"
        )


main()
