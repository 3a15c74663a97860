# code.awk: C source with its comments taken out and its string and character literals emptied, line
# for line, so that the checks see code only and can still say where. Include lines keep their names.

/^[ \t]*#[ \t]*include/ && !in_comment { print; next }

{
	out = ""
	quote = ""
	for (i = 1; i <= length($0); i++) {
		c = substr($0, i, 1)
		pair = substr($0, i, 2)
		if (in_comment) {
			if (pair == "*/") { in_comment = 0; i++ }
		} else if (quote != "") {
			if (c == "\\") i++
			else if (c == quote) { quote = ""; out = out c }
		} else if (pair == "/*") {
			in_comment = 1; i++
		} else if (pair == "//") {
			break
		} else {
			# The quote mark in a number such as 1'000 belongs to the number.
			if (c == "\"" || (c == "'" && out !~ /[0-9]$/)) quote = c
			out = out c
		}
	}
	print out
}
