# shellcheck shell=bash disable=SC2034,SC2154
# xsltproc: a transformation with keys, sorting and recursion.
needs=(xsltproc)

workload() {
	generate 2000 | awk -f "$here/input/orders.xml.awk" >orders.xml
	under xsltproc "$here/input/orders.xsl" orders.xml
}
