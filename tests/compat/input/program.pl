# Work for Perl, on the tab-separated file that its argument names: id, name, price, words.
use strict;
use warnings;
use threads;
use List::Util qw(sum reduce);
use Storable qw(freeze thaw);
use Digest::SHA qw(sha256_hex);

$| = 1;
$Storable::canonical = 1;
open my $in, '<', $ARGV[0] or die;
my (@rows, %by_word);
while (<$in>) {
	chomp;
	my ($id, $name, $price, $words) = split /\t/;
	push @rows, { id => $id, name => $name, price => $price, words => [ split / /, $words ] };
	$by_word{$_}{$id}++ for split / /, $words;
}
printf "%d rows, %d words, %d\n", scalar @rows, scalar keys %by_word, sum map { $_->{price} } @rows;
print "$_ ", scalar keys %{ $by_word{$_} }, "\n" for sort keys %by_word;

my $copy = thaw freeze \@rows;
print sha256_hex(freeze $copy), "\n";
my @sorted = sort { $a->{price} <=> $b->{price} || $a->{id} <=> $b->{id} } @$copy;
print join(',', map { $_->{id} } @sorted[ 0 .. 40 ]), "\n";

my $text = join "\n", map { "$_->{id}: @{$_->{words}}" } @rows;
(my $changed = $text) =~ s/\b([a-z])(\w+)\b/\u$1$2/g;
print length $changed, ' ', ($changed =~ tr/A-Z//), ' ', sha256_hex($changed), "\n";
my %pairs;
$pairs{"$1 $2"}++ while $text =~ /(?=\b(\w+) (\w+)\b)\w+/g;
print "$_ $pairs{$_}\n" for (sort { $pairs{$b} <=> $pairs{$a} || $a cmp $b } keys %pairs)[ 0 .. 9 ];

my @closures = map { my $n = $_; sub { $n += shift; "$n" x 3 } } 1 .. 2000;
my $all = '';
$all .= $_->(5) for @closures, @closures;
print sha256_hex($all), "\n";

# An interpreter is cloned for each thread, and freed by the thread that joins it.
my @threads = map {
	my $n = $_;
	threads->create(sub {
		my %mine = map { ("$n-$_" => [ 1 .. $_ % 50 ]) } 1 .. 2000;
		delete @mine{ map {"$n-$_"} grep { $_ % 3 } 1 .. 2000 };
		return sum map { scalar @$_ } values %mine;
	});
} 1 .. 4;
print join(' ', map { $_->join } @threads), "\n";

for my $n (1 .. 10) {
	my $child = open(my $pipe, '-|') // die;
	if (!$child) {
		my %mine = map { $_ => 'x' x $_ } 1 .. 100 * $n;
		print length join '', values %mine;
		exit 0;
	}
	print "$n: ", <$pipe>, "\n";
	close $pipe;
}
print `echo from a shell`;
local $@;
eval { die { code => 42, rows => [@rows] } };
print "caught $@->{code} with ", scalar @{ $@->{rows} }, "\n";
printf "%s\n", reduce { length $a > length $b ? $a : $b } map { "@{$_->{words}}" } @rows;
