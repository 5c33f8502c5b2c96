// Reads what write_cases.py writes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

struct Array {
    std::string type; // f4, f8, i8 or u1
    std::vector<int64_t> shape, strides;
    std::vector<unsigned char> memory;
    int64_t offset = 0;

    template <class T> const T *data() const {
        return reinterpret_cast<const T *>(memory.data()) + offset;
    }
    int64_t size() const {
        int64_t product = 1;
        for (int64_t n : shape) { product *= n; }
        return product;
    }
};

struct Case {
    std::string op, name;
    std::map<std::string, double> numbers;
    std::map<std::string, Array> arrays;

    const Array &array(const std::string &key) const { return arrays.at(key); }
    double number(const std::string &key) const { return numbers.at(key); }
};

// False at the end of the file.
inline bool read_case(std::ifstream &file, Case &result) {
    result = Case();
    std::string line, word, key;
    while (std::getline(file, line)) {
        std::istringstream words(line);
        words >> word;
        if (word == "case") {
            words >> result.op >> result.name;
        } else if (word == "number") {
            std::string value;
            words >> key >> value;
            result.numbers[key] = std::strtod(value.c_str(), nullptr);
        } else if (word == "array") {
            Array array;
            int64_t rank = 0, bytes = 0;
            words >> key >> array.type >> rank;
            array.shape.resize(rank);
            array.strides.resize(rank);
            for (int64_t &n : array.shape) { words >> n; }
            for (int64_t &n : array.strides) { words >> n; }
            words >> array.offset >> bytes;
            array.memory.resize(bytes);
            file.read(reinterpret_cast<char *>(array.memory.data()), bytes);
            result.arrays[key] = std::move(array);
        } else if (word == "end") {
            return true;
        } else {
            std::fprintf(stderr, "not a case file: %s\n", line.c_str());
            std::exit(2);
        }
    }
    return false;
}
