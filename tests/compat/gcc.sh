# shellcheck shell=bash disable=SC2034,SC2154
# gcc: a C file of 2,000 lines, to assembly and to an object, with and without optimisation.
needs=(gcc ld)

generate_c() {
	generate 250 | awk -F'\t' '
		BEGIN { print "#include <stdio.h>\n#include <string.h>\nstruct item { int key; const char *name; };" }
		{
			printf "static int f%d(struct item *items, int n)\n{\n\tint sum = %d;\n", $1, $3
			printf "\tfor (int i = 0; i < n; i++)\n"
			printf "\t\tsum += items[i].key * %d + (strcmp(items[i].name, \"%s\") < 0);\n", $3 % 97, $2
			printf "\treturn sum ^ %d;\n}\n", $1
		}
		END {
			print "int main(void)\n{\n\tstruct item items[] = {{1, \"amber\"}, {2, \"salt\"}};\n\tunsigned sum = 0;"
			for (i = 0; i < NR; i++) printf "\tsum += (unsigned)f%d(items, 2);\n", i
			print "\tprintf(\"%u\\n\", sum);\n\treturn 0;\n}"
		}'
}

workload() {
	generate_c >program.c
	wc -l program.c
	under gcc -O2 -S program.c -o program.s
	under gcc -O2 -g -c program.c -o optimised.o
	under gcc -O0 -Wall -Wextra -c program.c -o plain.o
	under gcc optimised.o -o program
	./program
	echo 'int main(void) { return undeclared; }' >wrong.c
	under_failing gcc -c wrong.c 2>&1
	sha256sum ./*.o program
}
