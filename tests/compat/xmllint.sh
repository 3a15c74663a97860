# shellcheck shell=bash disable=SC2034,SC2154
# xmllint: every parser it has, XPath, schema and DTD validation, canonical form.
needs=(xmllint)

workload() {
	generate 3000 | awk -f "$here/input/orders.xml.awk" >orders.xml
	under xmllint --format orders.xml | sha256sum
	under xmllint --c14n orders.xml | sha256sum
	under xmllint --stream --noout orders.xml && echo streamed
	under xmllint --push --noout orders.xml && echo pushed
	under xmllint --sax1 --noout --repeat orders.xml && echo repeated
	under xmllint --xpath 'count(//line[@sku > 50000])' orders.xml
	under xmllint --xpath '//order[line/@sku = "41"]/note/text()' orders.xml
	under_failing xmllint --noout --schema "$here/input/orders.xsd" orders.xml 2>&1
	under xmllint --noout --dtdvalid "$here/input/orders.dtd" orders.xml && echo valid
	sed 's/<line /<lime /' orders.xml | head -n 60 >wrong.xml
	under xmllint --recover wrong.xml 2>&1
	under xmllint --html --xmlout orders.xml 2>/dev/null | sha256sum
}
