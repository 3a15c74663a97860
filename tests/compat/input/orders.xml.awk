# Turns generated lines (id, name, price, words; tab-separated) into a document of orders.
BEGIN {
	FS = "\t"
	print "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<orders xmlns:x=\"urn:example:x\">"
}
{
	printf "  <order id=\"o%d\" x:name=\"%s\">\n    <note>%s &amp; <em>%s</em></note>\n", $1, $2, $4, $2
	n = split($4, word, " ")
	for (i = 1; i < n; i++)
		printf "    <line sku=\"%d\" unit=\"%s\">%s</line>\n", ($3 * i) % 90000, word[i], word[i + 1]
	print "  </order>"
}
END { print "</orders>" }
