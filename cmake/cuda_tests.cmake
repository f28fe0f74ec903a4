# cuda_tests.cmake - tests of the kernels, which tests/hostcuda runs on this machine's CPU, and programs for
# a real GPU. Where CUDA is built.

# Stand-ins for libraries, which tests find by EQ_LIBRARIES: all in fake/, one that lacks a function in
# fake/broken/. The real ones are never loaded in a test.
function(add_fake name source folder)
    add_library(fake_${name} MODULE tests/cuda/fake/${source}.c)
    target_compile_options(fake_${name} PRIVATE -Wall -Wextra -Wshadow ${WERROR} -fvisibility=hidden)
    target_include_directories(fake_${name} PRIVATE tests)
    target_include_directories(fake_${name} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} ${ARGN})
    set_target_properties(fake_${name} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${folder})
    add_dependencies(test_libraries fake_${name})
    add_dependencies(test_library_files fake_${name})
    add_dependencies(test_library_cases fake_${name})
    add_dependencies(test_program fake_${name})
endfunction()
find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(CUBLASLT_INCLUDE_DIR)
    add_fake(cublaslt cublaslt fake)
    add_fake(broken cublaslt fake/broken)
    target_compile_definitions(fake_broken PRIVATE WITHOUT_MATMUL)
    set_target_properties(fake_cublaslt fake_broken PROPERTIES OUTPUT_NAME libcublasLt SUFFIX .so.${CUDAToolkit_VERSION_MAJOR})
endif()
if(CUDNN_INCLUDE_DIR)
    add_fake(cudnn cudnn fake ${CUDNN_INCLUDE_DIR})
    set_target_properties(fake_cudnn PROPERTIES OUTPUT_NAME libcudnn SUFFIX .so.9)
endif()
add_fake(tool nvtx fake) # what nvtx ranges are seen by
set_target_properties(fake_tool PROPERTIES OUTPUT_NAME tool SUFFIX .so)
target_compile_definitions(test_program PRIVATE FAKES="${CMAKE_BINARY_DIR}/fake")
foreach(name test_libraries test_library_cases test_library_files)
    target_compile_definitions(${name} PRIVATE FAKES="${CMAKE_BINARY_DIR}/fake" CUBLASLT="libcublasLt.so.${CUDAToolkit_VERSION_MAJOR}"
        HAVE_CUDNN=$<BOOL:${CUDNN_INCLUDE_DIR}> HAVE_CUBLASLT=$<BOOL:${CUBLASLT_INCLUDE_DIR}>)
endforeach()

# The real cuDNN, where it is: plans for GPUs that are not there.
add_library(fake_driver MODULE tests/cuda/fake/driver.c)
target_compile_options(fake_driver PRIVATE -Wall -Wextra ${WERROR} -fvisibility=hidden)
set_target_properties(fake_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fake/driver)
find_library(CUDNN_LIBRARY libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR})
add_executable(cudnn_plans tests/cuda/cudnn_plans.c)
target_link_libraries(cudnn_plans PRIVATE engine hostcuda)
set_target_properties(cudnn_plans PROPERTIES LINKER_LANGUAGE CXX)
add_dependencies(cudnn_plans fake_driver)
cmake_path(GET CUDNN_LIBRARY PARENT_PATH cudnn_folder)
add_test(NAME test_cudnn_plans COMMAND cudnn_plans)
set_tests_properties(test_cudnn_plans PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600
    ENVIRONMENT "EQ_LIBRARIES=${cudnn_folder};LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/fake/driver:${cudnn_folder}:${CUDAToolkit_LIBRARY_DIR}")

# The ops once more, on the device "cuda": kernels run on this machine's CPU by tests/hostcuda.
add_executable(test_ops_cuda tests/ops/test_ops.c)
target_link_libraries(test_ops_cuda PRIVATE twins engine hostcuda)
target_include_directories(test_ops_cuda PRIVATE tests)
target_compile_definitions(test_ops_cuda PRIVATE DEVICE="cuda")
set_target_properties(test_ops_cuda PROPERTIES LINKER_LANGUAGE CXX)
# The PTX of each architecture under another order of threads: copies that land as early as may be,
# then as late; random threads. Each tensor of the first run is an allocation of its own, whose bounds
# are checked.
add_test(NAME test_ops_cuda COMMAND test_ops_cuda)
set_tests_properties(test_ops_cuda PROPERTIES TIMEOUT 1200
    ENVIRONMENT "${TEST_THREADS};EQ_LIBRARIES=${CMAKE_BINARY_DIR}/fake;EQ_APART=1;HOSTCUDA_ARCH=80;HOSTCUDA_SCHED=0;HOSTCUDA_ASYNC=0")
add_test(NAME test_ops_cuda_late COMMAND test_ops_cuda)
set_tests_properties(test_ops_cuda_late PROPERTIES TIMEOUT 1200
    ENVIRONMENT "${TEST_THREADS};EQ_LIBRARIES=${CMAKE_BINARY_DIR}/fake;HOSTCUDA_ARCH=90;HOSTCUDA_SCHED=2;HOSTCUDA_ASYNC=1")
set_tests_properties(test_models_cuda PROPERTIES TIMEOUT 1200)
# Counts the host's waits.
target_link_options(test_sampler_cuda PRIVATE -Wl,--wrap=cudaStreamSynchronize,--wrap=cudaEventSynchronize)
# The same programs for a real GPU, which bench/gpu.sh runs: `ninja gpu`. No ctest entries: they need one.
add_executable(test_ops_gpu EXCLUDE_FROM_ALL tests/ops/test_ops.c)
target_compile_definitions(test_ops_gpu PRIVATE DEVICE="cuda")
add_executable(test_sweeps_gpu EXCLUDE_FROM_ALL tests/cuda/test_sweeps.c)
add_executable(conform_gpu EXCLUDE_FROM_ALL tests/hostcuda/conform/conform.cu)
set_target_properties(conform_gpu PROPERTIES CUDA_ARCHITECTURES 90a)
target_include_directories(conform_gpu PRIVATE tests/hostcuda include host)
target_compile_features(conform_gpu PRIVATE cuda_std_17)
target_compile_options(conform_gpu PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3>)
target_link_libraries(conform_gpu PRIVATE cudart)
foreach(name test_ops_gpu test_sweeps_gpu)
    target_link_libraries(${name} PRIVATE twins engine PkgConfig::CMOCKA cudart)
    target_include_directories(${name} PRIVATE tests)
endforeach()
add_custom_target(gpu DEPENDS equipoise conform_gpu test_ops_gpu test_sweeps_gpu nccl_alone comm_rank train_rank)
# The simulated GPU itself, without kernels of nvcc.
file(GLOB MACHINE_TESTS CONFIGURE_DEPENDS tests/hostcuda/selftest/*.cpp)
add_executable(test_hostcuda_machine ${MACHINE_TESTS})
target_link_libraries(test_hostcuda_machine PRIVATE hostcuda)
target_compile_features(test_hostcuda_machine PRIVATE cxx_std_17)
target_compile_options(test_hostcuda_machine PRIVATE -Wall -Wextra -Wpedantic -Wshadow ${WERROR})
add_test(NAME test_hostcuda_machine COMMAND test_hostcuda_machine)
# Planted bugs that must be found, with the simulated runtime; the words of the wrapper headers.
foreach(topic bugs conform)
    file(GLOB HOSTCUDA_TESTS CONFIGURE_DEPENDS tests/hostcuda/${topic}/*.cu)
    add_executable(test_hostcuda_${topic} ${HOSTCUDA_TESTS})
    set_target_properties(test_hostcuda_${topic} PROPERTIES CUDA_ARCHITECTURES 90a LINKER_LANGUAGE CXX)
    target_include_directories(test_hostcuda_${topic} PRIVATE tests/hostcuda include host)
    target_compile_features(test_hostcuda_${topic} PRIVATE cuda_std_17)
    target_compile_options(test_hostcuda_${topic} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:-O3 -lineinfo --no-compress>)
    target_link_libraries(test_hostcuda_${topic} PRIVATE hostcuda)
    add_test(NAME test_hostcuda_${topic} COMMAND test_hostcuda_${topic})
    set_tests_properties(test_hostcuda_${topic} PROPERTIES TIMEOUT 300)
endforeach()
# tests/device/<topic>.c: kernels alone, run the same way. Program and ctest entry test_<topic>.
file(GLOB DEVICE_TESTS CONFIGURE_DEPENDS tests/device/*.c)
foreach(source ${DEVICE_TESTS})
    get_filename_component(name ${source} NAME_WE)
    add_executable(test_${name} ${source})
    target_link_libraries(test_${name} PRIVATE engine hostcuda)
    target_include_directories(test_${name} PRIVATE tests)
    set_target_properties(test_${name} PROPERTIES LINKER_LANGUAGE CXX)
    add_test(NAME test_${name} COMMAND test_${name})
    set_tests_properties(test_${name} PROPERTIES ENVIRONMENT "${TEST_THREADS}" TIMEOUT 600)
    if(NOT name STREQUAL "conflicts") # which looks at no results
        list(APPEND COMPARED test_${name})
    endif()
endforeach()
# Every kernel in the objects ran in one of the tests that compare kernels, alone, with formulas in double.
list(APPEND COMPARED test_ops_cuda test_ops_cuda_late test_sweeps)
foreach(name ${COMPARED})
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT HOSTCUDA_KERNELS=${CMAKE_BINARY_DIR}/ran.${name})
    set_property(TEST ${name} PROPERTY FIXTURES_SETUP compared)
    list(APPEND RAN ${CMAKE_BINARY_DIR}/ran.${name})
endforeach()
add_test(NAME test_kernels_ran COMMAND bash ${CMAKE_SOURCE_DIR}/tests/device/kernels_ran.sh $<TARGET_FILE:engine> ${RAN})
set_tests_properties(test_kernels_ran PROPERTIES FIXTURES_REQUIRED compared ENVIRONMENT SOURCE_DIR=${CMAKE_SOURCE_DIR})
