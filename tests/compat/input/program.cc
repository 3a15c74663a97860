// Work for a C++ compiler, and then a program that allocates through operator new in many ways.
#include <algorithm>
#include <functional>
#include <future>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

namespace
{

struct alignas(64) wide {
	double values[8];
};

using value = std::variant<long, std::string, std::vector<wide>>;

std::minstd_rand generator(20231);

std::string word(unsigned letters)
{
	std::string text;
	while (letters-- > 0)
		text += static_cast<char>('a' + generator() % 26);
	return text;
}

template <typename Map> unsigned long fill(unsigned count)
{
	Map map;
	for (unsigned i = 0; i < count; i++) {
		std::string key = word(1 + generator() % 30);
		switch (generator() % 3) {
		case 0:
			map[key] = static_cast<long>(i);
			break;
		case 1:
			map[key] = word(generator() % 200);
			break;
		default:
			map[key] = std::vector<wide>(generator() % 5);
		}
		if (i % 3 == 0)
			map.erase(word(1 + generator() % 2));
	}
	unsigned long sum = map.size();
	for (auto &entry : map)
		sum += entry.first.size() * (entry.second.index() + 1);
	return sum;
}

unsigned thrown(unsigned depth)
{
	auto kept = std::make_unique<std::string>(word(100));
	if (depth == 0)
		throw std::runtime_error(word(20));
	return thrown(depth - 1) + static_cast<unsigned>(kept->size());
}

unsigned long in_thread(unsigned seed)
{
	std::list<std::string> list;
	std::minstd_rand mine(seed);
	for (unsigned i = 0; i < 20000; i++) {
		list.emplace_back(mine() % 300, 'x');
		if (mine() % 2)
			list.pop_front();
	}
	return std::accumulate(list.begin(), list.end(), 0ul,
	                       [](unsigned long sum, const std::string &s) { return sum + s.size(); });
}

} // namespace

int main()
{
	std::cout << fill<std::map<std::string, value>>(20000) << '\n';
	std::cout << fill<std::unordered_map<std::string, value>>(20000) << '\n';

	std::ostringstream out;
	std::regex pattern("([a-z])([a-z]*)q");
	for (int i = 0; i < 500; i++)
		out << std::regex_replace(word(60), pattern, "<$2$1>") << '\n';
	std::cout << out.str().size() << ' ' << std::hash<std::string>()(out.str()) << '\n';

	unsigned caught = 0;
	for (unsigned i = 0; i < 500; i++) {
		try {
			thrown(i % 40);
		} catch (const std::exception &error) {
			caught += static_cast<unsigned>(error.what()[0]);
		}
	}
	std::cout << caught << '\n';

	std::vector<std::future<unsigned long>> results;
	for (unsigned i = 1; i <= 6; i++)
		results.push_back(std::async(std::launch::async, in_thread, i));
	for (auto &result : results)
		std::cout << result.get() << ' ';
	std::cout << '\n';

	std::multiset<std::shared_ptr<std::function<int(int)>>> functions;
	for (int i = 0; i < 3000; i++) {
		std::string held = word(40);
		functions.insert(std::make_shared<std::function<int(int)>>(
			[held, i](int n) { return n + i + static_cast<int>(held.size()); }));
	}
	long sum = 0;
	for (auto &function : functions)
		sum += (*function)(2);
	std::cout << sum << '\n';

	try {
		std::vector<char> impossible;
		impossible.reserve(impossible.max_size());
	} catch (const std::bad_alloc &) {
		std::cout << "no memory for that\n";
	} catch (const std::length_error &) {
		std::cout << "too long\n";
	}
}
